// Package config reads pipeline.yaml. It is strict: a key that nothing reads, a
// value of the wrong type, an unset variable is an error that names line and
// key, and all errors of a file come together.
package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"leat"
	"leat/chunker"
	"leat/embedder"
	"leat/sinks/elastic"
	"leat/sinks/milvus"
	"leat/sinks/sqlite"
	"leat/sources/folder"
	"leat/sources/mysql"
	"leat/sources/s3"
)

// DefaultFile is read where no other is named.
const DefaultFile = "pipeline.yaml"

// Pipeline is what pipeline.yaml holds. Each component documents its own part.
type Pipeline struct {
	// Name stands before the names of topics, groups and indexes: lower-case
	// letters, digits and hyphens. Default "leat".
	Name string `yaml:"name"`
	// DataDir holds what leat keeps on this machine: the embedded broker, the
	// embedded store, caches. A relative one is relative to the file. Default
	// "leat-data".
	DataDir  string          `yaml:"data_dir" config:"path"`
	Sources  []Source        `yaml:"sources"` // at least one
	Chunker  chunker.Config  `yaml:"chunker"`
	Embedder embedder.Config `yaml:"embedder"`
	Store    sqlite.Config   `yaml:"store"` // the embedded store
	Kafka    *Kafka          `yaml:"kafka"` // nil: the embedded broker
	// Servers in place of the embedded store: nil: it holds that part.
	Elasticsearch *elastic.Config `yaml:"elasticsearch"` // the text
	Milvus        *milvus.Config  `yaml:"milvus"`        // the vectors
}

// Source is one place where documents come from: exactly one of the kinds.
type Source struct {
	Name   string         `yaml:"name"` // part of its documents' ids
	MySQL  *mysql.Config  `yaml:"mysql" config:"kind"`
	Folder *folder.Config `yaml:"folder" config:"kind"`
	S3     *s3.Config     `yaml:"s3" config:"kind"`
}

// Kind is the key of the source's kind, such as "mysql".
func (s Source) Kind() string {
	switch {
	case s.MySQL != nil:
		return "mysql"
	case s.S3 != nil:
		return "s3"
	}
	return "folder"
}

// Default is a pipeline without sources, everything at its default.
func Default() *Pipeline { return &Pipeline{Name: "leat", DataDir: "leat-data"} }

// Load reads a file. Its error is [Errors].
func Load(file string) (*Pipeline, error) {
	p := Default()
	if err := load(file, p, os.LookupEnv); err != nil {
		return nil, err
	}
	return p, nil
}

var nameText = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

const nameHint = "use up to 63 lower-case letters, digits and hyphens between them"

// Validate checks what no component does.
func (p *Pipeline) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	if !nameText.MatchString(p.Name) {
		bad("name", nameHint, "%q cannot name topics and indexes", p.Name)
	}
	if p.DataDir == "" {
		bad("data_dir", "leave it out for leat-data beside the file", "is empty")
	}
	if len(p.Sources) == 0 {
		bad("sources", "add one: a mysql, an s3 or a folder", "is required")
	}
	first := map[string]int{}
	for i, s := range p.Sources {
		field := index("sources", i) + ".name"
		other, taken := first[s.Name]
		switch {
		case s.Name == "":
			bad(field, "name it: the name is part of its documents' ids", "is required")
		case !nameText.MatchString(s.Name):
			bad(field, nameHint, "%q cannot name a source", s.Name)
		case taken:
			bad(field, "", "sources[%d] is named %q already", other, s.Name)
		default:
			first[s.Name] = i
		}
	}
	return errors.Join(errs...)
}
