package demo

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"leat"
)

// place is where the demo's documents are.
type place interface {
	what() string   // "folder"
	where() string  // its path
	config() string // the source in pipeline.yaml
	try() string    // a command that puts a document there
	put(name, text string) error
	remove(name string) error
	count() (int64, error)
}

//go:embed knowledge
var knowledge embed.FS

// fill puts the documents that come with the demo into the place.
func (d *demo) fill() (files int, err error) {
	sub, err := fs.Sub(knowledge, "knowledge")
	if err != nil {
		return 0, err
	}
	return files, fs.WalkDir(sub, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := fs.ReadFile(sub, name)
		if err != nil {
			return err
		}
		files++
		return d.place.put(name, string(text))
	})
}

// document is the id of a document of the place.
func (d *demo) document(name string) string {
	kind := "folder"
	if d.Stack {
		kind = "s3"
	}
	return leat.DocumentID(kind, "knowledge", strings.Split(name, "/")...)
}

// folder is a place on this machine's disk.
type folder struct{ dir string }

func (f folder) what() string  { return "folder" }
func (f folder) where() string { return f.dir }
func (f folder) config() string {
	return fmt.Sprintf("  - name: knowledge\n    folder:\n      path: %s\n", f.dir)
}

func (f folder) try() string {
	return "echo 'Keys hang behind the blue door.' > " + filepath.Join(f.dir, "keys.txt")
}

func (f folder) put(name, text string) error {
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (f folder) remove(name string) error {
	return os.Remove(filepath.Join(f.dir, filepath.FromSlash(name)))
}

func (f folder) count() (n int64, err error) {
	return n, filepath.WalkDir(f.dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
}
