package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// everything has a field of each type that a configuration can have.
type everything struct {
	Text     string        `yaml:"text"`
	Yes      bool          `yaml:"yes"`
	Int      int           `yaml:"int"`
	Small    uint8         `yaml:"small"`
	Ratio    float64       `yaml:"ratio"`
	Wait     time.Duration `yaml:"wait"`
	Memory   int64         `yaml:"memory" config:"size"`
	Dir      string        `yaml:"dir" config:"path"`
	Password leat.Secret   `yaml:"password"`
	Maybe    *bool         `yaml:"maybe"`
	List     []string      `yaml:"list"`
	Parts    []part        `yaml:"parts"`
}

type sub struct{}

type part struct {
	Size int  `yaml:"size"`
	Sub  *sub `yaml:"sub"`
}

func (p part) Validate() error {
	var errs []error
	if p.Size > 9 {
		errs = append(errs, &leat.FieldError{Field: "size", Msg: "is too large", Hint: "give at most 9"})
	}
	if p.Sub != nil {
		errs = append(errs, leat.Hint(errors.New("parts have no parts"), "leave it out"))
	}
	return errors.Join(errs...)
}

func read(t *testing.T, text string, into any) (dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("from a file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "test.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"NUMBER": "7", "TEXT": "a: [b]", "EMPTY": "", "NULL": "null"}
	err = load(file, into, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	return dir, err
}

func TestTypes(t *testing.T) {
	got := everything{Text: "default", Int: 5}
	dir, err := read(t, `
text: 1.10
yes: TRUE
int:
small: "${NUMBER}"
ratio: 1
wait: 1m30s
memory: 64MiB
dir: below/it
password_file: secret
list: &list [a, "${TEXT}", "${NUMBER}", '$${TEXT}', $5, "${EMPTY:-x}${NOTHING:-y}${EMPTY}"]
parts: [{size: 0x9}, ]
`, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := everything{
		Text: "1.10", Yes: true, Int: 5, Small: 7, Ratio: 1, Wait: 90 * time.Second, Memory: 64 << 20,
		Dir: filepath.Join(dir, "below/it"), Password: "from a file",
		List:  []string{"a", "a: [b]", "7", "${TEXT}", "$5", "xy"},
		Parts: []part{{Size: 9}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"size", "memory: 64MB", `1:9: memory: found "64MB", expected a size; write it as "512KiB", "64MiB" or "2GiB"`},
		{"size too large", "memory: 9999999999GiB", `1:9: memory: "9999999999GiB" is out of range`},
		{"bool", "yes: yes", `1:6: yes: found "yes", expected true or false; write true or false`},
		{"quoted bool", `yes: "true"`, `1:6: yes: found "true", expected true or false; leave out the quotes`},
		{"overflow", "small: 256", `1:8: small: 256 is out of range; give a whole number from 0 to 255`},
		{"float", "ratio: half", `1:8: ratio: found "half", expected a number`},
		{"field error", "parts:\n  - size: 1\n  - size: 10", `3:11: parts[1].size: is too large; give at most 9`},
		{"component error", "parts: [{size: 1, sub: {}}]", `1:9: parts[0]: parts have no parts; leave it out`},
		{"list item", "list: [a, {b: c}]", `1:11: list[1]: found a mapping, expected text`},
		{"control character", "text: \x01", `1:1: not YAML: control characters are not allowed`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var into everything
			dir, err := read(t, test.text, &into)
			if err == nil {
				t.Fatalf("no error; read %+v", into)
			}
			if diff := cmp.Diff(filepath.Join(dir, "test.yaml")+":"+test.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestSecretText: whatever a variable holds is the secret.
func TestSecretText(t *testing.T) {
	var into everything
	if _, err := read(t, "password: ${NULL}", &into); err != nil || into.Password.Reveal() != "null" {
		t.Errorf("%q, %v", into.Password.Reveal(), err)
	}
}

// TestAliases: a value can be used twice; what an alias makes of its own
// anchor is of the wrong type, as no type contains itself.
func TestAliases(t *testing.T) {
	var into everything
	_, err := read(t, "list: [&x a, *x]\nparts: [&p {size: 1}, *p]", &into)
	if err != nil {
		t.Fatal(err)
	}
	want := everything{List: []string{"a", "a"}, Parts: []part{{Size: 1}, {Size: 1}}}
	if diff := cmp.Diff(want, into); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	_, err = read(t, "parts: &p [*p, {size: *p}]", &into)
	if err == nil || strings.Count(err.Error(), "found a list") != 2 {
		t.Errorf("%v", err)
	}
}

// TestPipelineTypes: no field has a type that the decoder does not know.
func TestPipelineTypes(t *testing.T) {
	var check func(reflect.Type, string)
	check = func(typ reflect.Type, path string) {
		switch {
		case typ == reflect.TypeFor[time.Duration](), typ == reflect.TypeFor[leat.Secret]():
			return
		case typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice:
			check(typ.Elem(), path)
			return
		case typ.Kind() != reflect.Struct:
			v := reflect.New(typ).Elem()
			if typ.Kind() != reflect.String && typ.Kind() != reflect.Bool && !v.CanInt() && !v.CanUint() && !v.CanFloat() {
				t.Errorf("%s is a %s", path, typ)
			}
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("yaml")
			if !f.IsExported() || !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(key) {
				t.Errorf("%s.%s has the key %q", path, f.Name, key)
			}
			if tag := f.Tag.Get("config"); !slices.Contains([]string{"", "path", "size", "kind"}, tag) {
				t.Errorf("%s.%s has the tag %q", path, f.Name, tag)
			}
			check(f.Type, path+"."+key)
		}
	}
	check(reflect.TypeFor[Pipeline](), "")
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	for file, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): filepath.Join(dir, "none.yaml") + ": no such file or directory; write one, or name another with --config",
		dir:                             dir + ": is a directory",
	} {
		_, err := Load(file)
		if err == nil || err.Error() != want {
			t.Errorf("%v, not %s", err, want)
		}
	}
}

// FuzzLoad: whatever the file, no panic, and every mistake has a place in it.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, into := range []any{&everything{}, &Pipeline{}} {
			err := load(file, into, func(string) (string, bool) { return "", false })
			var errs Errors
			if err != nil && !errors.As(err, &errs) {
				t.Fatalf("%T", err)
			}
			for _, e := range errs {
				if e.Line < 1 || e.Column < 1 || e.Line > strings.Count(string(text), "\n")+2 {
					t.Errorf("%d:%d of %q: %v", e.Line, e.Column, text, e)
				}
			}
		}
	})
}
