package milvus

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// maxVarChar is the most bytes that a string field of Milvus holds.
const maxVarChar = 65535

// escape makes a document id printable ASCII without quotes, backslashes and
// spaces, so that it needs no more care in an expression, and keeps the byte
// order: escaped ids compare as the ids do. Ids as [leat.DocumentID] makes them
// stay as they are.
func escape(id string) string {
	var b strings.Builder
	for i := range len(id) {
		switch c := id[i]; {
		case c <= '"':
			fmt.Fprintf(&b, "!%02X", c)
		case c == '[':
			b.WriteString("[0")
		case c == '\\':
			b.WriteString("[1")
		case c >= '~':
			fmt.Fprintf(&b, "~%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape undoes [escape]. What no escape made stays as it is.
func unescape(s string) string {
	if !strings.ContainsAny(s, "![~") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '[' && i+1 < len(s):
			i++
			b = append(b, '['+(s[i]-'0'))
		case (s[i] == '!' || s[i] == '~') && i+2 < len(s):
			c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return s
			}
			b = append(b, byte(c))
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

// A state's key is its document's escaped id and its version, so that states
// sort by id and version: no escaped id has a space, which sorts below all that
// one has. The state of a part has the part's number behind.
func stateKey(escaped string, version uint64) string {
	return fmt.Sprintf("%s %016x", escaped, version)
}

func partKey(escaped string, version uint64, part int, again bool) string {
	mark := '+'
	if again {
		mark = '*'
	}
	return fmt.Sprintf("%s%c%08x", stateKey(escaped, version), mark, part)
}

const longestStateTail = len(" 0123456789abcdef+01234567")

// parseStateKey undoes stateKey and partKey.
func parseStateKey(key string) (s state, err error) {
	escaped, tail, _ := strings.Cut(key, " ")
	s.key, s.ID, s.part = key, unescape(escaped), -1
	if i := strings.IndexAny(tail, "+*"); i >= 0 {
		n, err := strconv.ParseUint(tail[i+1:], 16, 32)
		if err != nil {
			return state{}, fmt.Errorf("the key %q is not of a state: %w", key, err)
		}
		s.part, s.again, tail = int(n), tail[i] == '*', tail[:i]
	}
	if s.Version, err = strconv.ParseUint(tail, 16, 64); err != nil {
		return state{}, fmt.Errorf("the key %q is not of a state: %w", key, err)
	}
	return s, nil
}

// digest of a document's id: a name for keys of chunks (132 bits), and a number
// to find its rows by.
func digest(id string) (name string, hash int64) {
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:22], int64(binary.BigEndian.Uint64(sum[:]) >> 1)
}

// A chunk's key: rows of different versions never have the same, so that none
// is ever overwritten with other content, and those of one version sort by
// ordinal. A row belongs to the document that its key names.
func chunkKey(name string, version uint64, ordinal int) string {
	return fmt.Sprintf("%s/%016x/%08x", name, version, ordinal)
}

const maxChunkKey = len("1234567890123456789012/0123456789abcdef/01234567")

// parseChunkKey returns the document's name, the version and the ordinal.
func parseChunkKey(key string) (name string, version uint64, ordinal int, err error) {
	if len(key) == maxChunkKey {
		var n uint64
		version, err = strconv.ParseUint(key[23:39], 16, 64)
		if err == nil {
			n, err = strconv.ParseUint(key[40:], 16, 32)
		}
		name, ordinal = key[:22], int(n)
	}
	if err != nil || key != chunkKey(name, version, ordinal) {
		return "", 0, 0, fmt.Errorf("the key %q is not of a chunk", key)
	}
	return name, version, ordinal, nil
}
