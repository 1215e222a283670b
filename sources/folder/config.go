package folder

import (
	"errors"
	"fmt"
	"time"

	"leat"
	"leat/sources/listing"
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

// Validate reports all mistakes as joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	if c.Path == "" {
		errs = append(errs, &leat.FieldError{Field: "path", Msg: "is required", Hint: "name the folder with the documents"})
	}
	errs = append(errs, c.selection().Validate()...)
	if c.Rescan < 0 || c.Rescan > 0 && c.Rescan < time.Second {
		errs = append(errs, &leat.FieldError{Field: "rescan", Msg: fmt.Sprintf("%s is less than 1s", c.Rescan)})
	}
	return errors.Join(errs...)
}

func (c Config) selection() listing.Selection {
	return listing.Selection{Include: c.Include, Exclude: c.Exclude}
}
