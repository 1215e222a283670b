// Package check holds the tests of the files in deploy/: as much as can be told
// of them without Docker and without a cluster. It is a module of its own so
// that what it needs is not a dependency of leat.
package check

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// partitions of leat's topics on a cluster (internal/app): more processes of a
// stage than that stand idle.
const partitions = 12

// problems collects what is wrong.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

func (p problems) err() error { return errors.Join(p...) }

// pinned reports whether an image is named with a version.
func pinned(image string) bool {
	_, tag, ok := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return ok && strings.ContainsAny(tag, "0123456789")
}

var variable = regexp.MustCompile(`\$\{([A-Z_0-9]+)`)

// variables are the names of the environment variables in a file, sorted.
func variables(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range variable.FindAllStringSubmatch(string(b), -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// stageOf is the stage that a command line runs, "" where it is none's.
func stageOf(args []string) string {
	if len(args) == 3 && args[0] == "run" && args[1] == "--stages" {
		return args[2]
	}
	return ""
}

// sameNames says what is missing in have and what should not be there.
func (p *problems) sameNames(what string, have, want []string) {
	for _, n := range want {
		if !slices.Contains(have, n) {
			p.add("%s: %s is missing", what, n)
		}
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			p.add("%s: %s should not be there", what, n)
		}
	}
}

// dataDir is the data_dir of a pipeline.yaml, "" where it names none.
func dataDir(pipeline []byte) string {
	var p struct {
		DataDir string `json:"data_dir"`
	}
	if yaml.Unmarshal(pipeline, &p) != nil {
		return ""
	}
	return p.DataDir
}
