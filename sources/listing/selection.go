package listing

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"leat"
)

// Selection says by glob patterns which items are documents: all that Include
// names, or all if it is empty, without those that Exclude names or that are
// below a folder that it names. A pattern with a slash is matched with the
// whole path, one without with the name; ** stands for any number of folders.
// Hidden files, and what editors and downloads leave while they work, never are.
type Selection struct{ Include, Exclude []string }

// temporary are the names that are never documents.
var temporary = []string{
	".*",                                 // hidden; .#x and .x.swp of editors
	"*~", "#*#", "*.swp", "*.swx", "~$*", // backups and locks of editors and office programs
	"*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload", "*.download", // unfinished downloads
	"Thumbs.db", "desktop.ini",
}

// Validate reports mistakes as *leat.FieldError of include and exclude.
func (s Selection) Validate() (errs []error) {
	for key, patterns := range map[string][]string{"include": s.Include, "exclude": s.Exclude} {
		for i, p := range patterns {
			field := fmt.Sprintf("%s[%d]", key, i)
			switch {
			case p == "":
				errs = append(errs, &leat.FieldError{Field: field, Msg: "is empty"})
			case !doublestar.ValidatePattern(p):
				errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf("%q is not a glob pattern", p),
					Hint: "close every [ and {, and write \\[ or \\{ for the character itself"})
			case strings.HasPrefix(p, "/") || slices.Contains(strings.Split(p, "/"), ".."):
				errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf("%q matches nothing", p),
					Hint: "patterns are relative to the folder"})
			}
		}
	}
	return errs
}

// Excludes reports whether the item or folder at rel itself is left out.
// Folders that are hold no documents either.
func (s Selection) Excludes(rel string) bool {
	return matches(temporary, rel) || matches(s.Exclude, rel)
}

// Includes reports whether the item at rel is a document, where neither it nor
// a folder above it is excluded.
func (s Selection) Includes(rel string) bool {
	return len(s.Include) == 0 || matches(s.Include, rel)
}

// Selects reports whether the item at rel is a document as far as names tell.
func (s Selection) Selects(rel string) bool { return s.Includes(rel) && s.Enters(rel) }

// Enters reports whether nothing on the way to rel is excluded.
func (s Selection) Enters(rel string) bool {
	for i, b := range rel {
		if b == '/' && s.Excludes(rel[:i]) {
			return false
		}
	}
	return !s.Excludes(rel)
}

func matches(patterns []string, rel string) bool {
	for _, p := range patterns {
		name := rel
		if !strings.Contains(p, "/") {
			name = path.Base(rel)
		}
		if doublestar.MatchUnvalidated(strings.TrimSuffix(p, "/"), name) {
			return true
		}
	}
	return false
}
