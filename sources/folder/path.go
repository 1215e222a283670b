package folder

import (
	"net/url"
	"path"
	"strings"
	"unicode/utf8"

	"leat"
)

// A document's place has three spellings: rel, its path below the root with
// slashes and the very bytes of the file system; its id, percent-encoded; and
// the name in references, which must survive JSON.

// id of the document at rel; of the folder there, without the last slash.
func (s *Source) id(rel string) string {
	return leat.DocumentID(kind, s.name, strings.Split(rel, "/")...)
}

// prefix of the ids of the documents below the folder at rel, "" for the root.
func (s *Source) prefix(rel string) string {
	if rel == "" {
		return leat.DocumentID(kind, s.name) + "/"
	}
	return s.id(rel) + "/"
}

// rel is the path that an id speaks of, and whether there can be such a file.
func (s *Source) rel(id string) (string, bool) {
	escaped, ok := strings.CutPrefix(id, s.prefix(""))
	if !ok {
		return "", false
	}
	rel, ok := unescape(escaped)
	return rel, ok && s.id(rel) == id
}

func unescape(escaped string) (string, bool) {
	parts := strings.Split(escaped, "/")
	for i, part := range parts {
		name, err := url.PathUnescape(part)
		if err != nil || strings.Contains(name, "/") {
			return "", false
		}
		parts[i] = name
	}
	rel := strings.Join(parts, "/")
	return rel, local(rel)
}

// local reports whether rel is a clean path that stays below the root.
func local(rel string) bool {
	return rel != "" && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../") &&
		path.Clean("/"+rel) == "/"+rel && !strings.ContainsRune(rel, 0)
}

// refName is rel itself where it is UTF-8. Where it is not (names out of an
// archive made under another charset) it is percent-encoded, told by a slash
// at its beginning.
func refName(rel string) string {
	if utf8.ValidString(rel) {
		return rel
	}
	return "/" + escape(rel)
}

func escape(rel string) string {
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// refRel undoes refName.
func refRel(name string) (string, bool) {
	if escaped, ok := strings.CutPrefix(name, "/"); ok {
		return unescape(escaped)
	}
	return name, local(name)
}
