package folder

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"leat"
)

// Config of a folder source.
type Config struct {
	// Path of the folder. A relative one is relative to pipeline.yaml.
	Path string `yaml:"path" config:"path"`
	// Include are glob patterns of the files that are documents; all are if
	// there is none. A pattern with a slash is matched with the path below the
	// folder, one without with the file's name; ** stands for any number of
	// folders, {a,b} for one of several: "*.md", "handbook/**/*.{md,html}".
	Include []string `yaml:"include"`
	// Exclude are glob patterns of files and folders to leave out, besides
	// hidden files, what editors and downloads leave while they work, and
	// lock files: "drafts", "*.log", "archive/2019-*".
	Exclude []string `yaml:"exclude"`
	// Rescan is how often the whole folder is compared with the index, which
	// finds what the watch has missed. Default 60s.
	Rescan time.Duration `yaml:"rescan"`
}

const defaultRescan = time.Minute

// temporary are the names that are never documents.
var temporary = []string{
	".*",                                 // hidden; .#x and .x.swp of editors
	"*~", "#*#", "*.swp", "*.swx", "~$*", // backups and locks of editors and office programs
	"*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload", "*.download", // unfinished downloads
	"Thumbs.db", "desktop.ini",
}

// Validate reports all mistakes as joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	if c.Path == "" {
		errs = append(errs, &leat.FieldError{Field: "path", Msg: "is required", Hint: "name the folder with the documents"})
	}
	for key, patterns := range map[string][]string{"include": c.Include, "exclude": c.Exclude} {
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
	if c.Rescan < 0 || c.Rescan > 0 && c.Rescan < time.Second {
		errs = append(errs, &leat.FieldError{Field: "rescan", Msg: fmt.Sprintf("%s is less than 1s", c.Rescan)})
	}
	return errors.Join(errs...)
}

// excludes reports whether the file or folder at rel, a path below the root,
// is left out. Folders that are hold no documents either.
func (c Config) excludes(rel string) bool {
	return matches(temporary, rel) || matches(c.Exclude, rel)
}

// includes reports whether the file at rel is a document, where neither it nor
// a folder above it is excluded.
func (c Config) includes(rel string) bool {
	return len(c.Include) == 0 || matches(c.Include, rel)
}

// selects reports whether the file at rel is a document as far as names tell.
func (c Config) selects(rel string) bool { return c.includes(rel) && c.enters(rel) }

// enters reports whether nothing on the way to rel is excluded.
func (c Config) enters(rel string) bool {
	for i, b := range rel {
		if b == '/' && c.excludes(rel[:i]) {
			return false
		}
	}
	return !c.excludes(rel)
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
