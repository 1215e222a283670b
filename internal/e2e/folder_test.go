package e2e

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// files changes the files of a folder source.
type files struct {
	t       *testing.T
	writer  writer
	name    string // of the source
	dir     string
	outside string // on the same filesystem, to move files in from
	have    []string
	serial  int
}

// step makes one change.
func (f *files) step() {
	switch n := f.writer.IntN(100); {
	case n < 45 || len(f.have) == 0:
		f.create()
	case n < 60: // in place
		name := f.any()
		f.write(name, f.content(name))
	case n < 70: // as editors save: a new file takes the place
		name := f.any()
		f.replace(name, []byte(f.writer.edited(string(f.read(name)))))
	case n < 75:
		f.append(f.any())
	case n < 83:
		f.rename()
	case n < 88:
		f.renameFolder()
	default:
		f.remove()
	}
}

func (f *files) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) any() string { return f.have[f.writer.IntN(len(f.have))] }

func (f *files) newName() string {
	f.serial++
	folders := []string{"", "guides", "guides/short ones", "手册", "手册/第一章", "100% #tags"}
	ext := []string{".md", ".md", ".txt", ".html"}
	stem := []string{"note", "a longer name, with a comma", "说明", "q&a+more"}
	return path.Join(f.writer.pick(folders), fmt.Sprintf("%s %d%s", f.writer.pick(stem), f.serial, f.writer.pick(ext)))
}

func (f *files) content(name string) []byte {
	w := f.writer
	switch path.Ext(name) {
	case ".md":
		return []byte(w.markdown(w.IntN(12)))
	case ".html":
		return []byte(w.html(1 + w.IntN(8)))
	}
	return []byte(w.paragraphs(1 + w.IntN(20)))
}

func (f *files) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *files) create() {
	name := f.newName()
	f.check(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	if f.writer.IntN(2) == 0 {
		f.replace(name, f.content(name))
	} else {
		f.write(name, f.content(name))
	}
	f.have = append(f.have, name)
}

func (f *files) write(name string, data []byte) { f.check(os.WriteFile(f.path(name), data, 0o644)) }

func (f *files) replace(name string, data []byte) {
	temp := filepath.Join(f.outside, "incoming")
	f.check(os.WriteFile(temp, data, 0o644))
	f.check(os.Rename(temp, f.path(name)))
}

func (f *files) read(name string) []byte {
	data, err := os.ReadFile(f.path(name))
	f.check(err)
	return data
}

func (f *files) append(name string) {
	file, err := os.OpenFile(f.path(name), os.O_APPEND|os.O_WRONLY, 0)
	f.check(err)
	_, err = file.WriteString("\n\n" + f.writer.paragraphs(1) + "\n")
	f.check(err)
	f.check(file.Close())
}

func (f *files) rename() {
	i := f.writer.IntN(len(f.have))
	from, to := f.have[i], f.newName()
	to = strings.TrimSuffix(to, path.Ext(to)) + path.Ext(from)
	f.check(os.MkdirAll(filepath.Dir(f.path(to)), 0o755))
	f.check(os.Rename(f.path(from), f.path(to)))
	f.have[i] = to
}

// renameFolder moves a folder with all files in it.
func (f *files) renameFolder() {
	from := path.Dir(f.any())
	if from == "." || strings.Contains(from, "/") {
		return
	}
	f.serial++
	to := fmt.Sprintf("moved %d", f.serial)
	f.check(os.Rename(f.path(from), f.path(to)))
	for i, name := range f.have {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			f.have[i] = path.Join(to, rest)
		}
	}
}

func (f *files) remove() {
	i := f.writer.IntN(len(f.have))
	f.check(os.Remove(f.path(f.have[i])))
	f.have = append(f.have[:i], f.have[i+1:]...)
}

// config is the source in pipeline.yaml.
func (f *files) config() string {
	return fmt.Sprintf(`
  - name: %s
    folder:
      path: %s
`, f.name, f.dir)
}

// expected reads the folder as it is now.
func (f *files) expected() map[string]expectedDocument {
	all := map[string]expectedDocument{}
	f.check(filepath.WalkDir(f.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(f.dir, p)
		if err != nil {
			return err
		}
		var escaped []string
		for _, part := range strings.Split(filepath.ToSlash(rel), "/") {
			escaped = append(escaped, url.PathEscape(part))
		}
		all["folder:"+f.name+"/"+strings.Join(escaped, "/")] = expectedDocument{
			text: string(data), ext: filepath.Ext(p), converted: filepath.Ext(p) == ".html",
		}
		return nil
	}))
	return all
}
