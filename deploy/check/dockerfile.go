package check

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// image is what the Dockerfile says of a container, for those who run it.
type image struct {
	user, workdir string
}

var secretName = regexp.MustCompile(`(?i)passw|secret|token|api_?key`)

// checkDockerfile checks deploy/Dockerfile and what is left of the repository's
// root for it to copy.
func checkDockerfile(root, deploy string) (image, error) {
	var p problems
	var img image
	stages, err := parseDockerfile(filepath.Join(deploy, "Dockerfile"), &p)
	if err != nil {
		return img, err
	}
	ignored, err := os.ReadFile(filepath.Join(deploy, "Dockerfile.dockerignore"))
	if err != nil {
		return img, err
	}
	kept := map[string]bool{}
	for line := range strings.Lines(string(ignored)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			kept[name] = true
		}
	}
	names := map[string]bool{}
	var entrypoint []string
	for _, s := range stages {
		if !names[s.BaseName] && !pinned(s.BaseName) {
			p.add("FROM %s: name its version", s.BaseName)
		}
		names[s.Name] = true
		for _, c := range s.Commands {
			switch c := c.(type) {
			case *instructions.CopyCommand:
				if c.From != "" && !names[c.From] {
					p.add("COPY --from=%s: no stage before is called that", c.From)
				}
				for _, source := range c.SourcePaths {
					if c.From != "" || source == "." {
						continue
					}
					if _, err := os.Stat(filepath.Join(root, source)); err != nil {
						p.add("COPY %s: %v", source, err)
					}
					if !kept[strings.TrimSuffix(source, "/")] {
						p.add("COPY %s: Dockerfile.dockerignore leaves it out", source)
					}
				}
			case *instructions.EnvCommand:
				for _, kv := range c.Env {
					if secretName.MatchString(kv.Key) {
						p.add("ENV %s: an image holds no secrets", kv.Key)
					}
				}
			case *instructions.ArgCommand:
				for _, kv := range c.Args {
					if secretName.MatchString(kv.Key) {
						p.add("ARG %s: an image holds no secrets", kv.Key)
					}
				}
			}
		}
	}
	for _, c := range stages[len(stages)-1].Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			img.user, _, _ = strings.Cut(c.User, ":")
		case *instructions.WorkdirCommand:
			img.workdir = c.Path
		case *instructions.EntrypointCommand:
			entrypoint = c.CmdLine
			if c.PrependShell {
				p.add("ENTRYPOINT: a shell between would keep signals from leat")
			}
		}
	}
	if !regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(img.user) {
		p.add("USER %q: Kubernetes tells that it is not root by a number only", img.user)
	}
	if len(entrypoint) != 1 || entrypoint[0] != "leat" {
		p.add("ENTRYPOINT %q: want leat alone", entrypoint)
	}
	packages, err := packageFolders(root)
	if err != nil {
		return img, err
	}
	for _, dir := range packages {
		top, _, _ := strings.Cut(dir, string(filepath.Separator))
		if top == "." {
			top = "*.go"
		}
		if !kept[top] {
			p.add("Dockerfile.dockerignore leaves out %s, which the program is built from", top)
		}
	}
	return img, p.err()
}

func parseDockerfile(file string, p *problems) ([]instructions.Stage, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for _, w := range parsed.Warnings {
		p.add("Dockerfile: %s", w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(name, _, _, message string, at []parser.Range) {
		p.add("Dockerfile:%d: %s (%s)", at[0].Start.Line, message, name)
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err == nil && len(stages) == 0 {
		err = fmt.Errorf("%s builds nothing", file)
	}
	return stages, err
}

// packageFolders are the folders below root that the program is built from.
func packageFolders(root string) ([]string, error) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.Dir}}{{end}}", "./cmd/leat")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var dirs []string
	for _, dir := range strings.Fields(string(out)) {
		if rel, err := filepath.Rel(root, dir); err == nil && filepath.IsLocal(rel) {
			dirs = append(dirs, rel)
		}
	}
	if len(dirs) < 2 {
		return nil, fmt.Errorf("go list names %d packages below %s", len(dirs), root)
	}
	return dirs, nil
}
