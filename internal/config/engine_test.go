package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leat"
)

// everything has a field of each type that a configuration can have.
type everything struct {
	Text     string            `yaml:"text"`
	Yes      bool              `yaml:"yes"`
	Int      int               `yaml:"int"`
	Small    uint8             `yaml:"small"`
	Ratio    float64           `yaml:"ratio"`
	Wait     time.Duration     `yaml:"wait"`
	Memory   int64             `yaml:"memory" config:"size"`
	Dir      string            `yaml:"dir" config:"path"`
	Password leat.Secret       `yaml:"password"`
	Maybe    *bool             `yaml:"maybe"`
	List     []string          `yaml:"list"`
	Headers  map[string]string `yaml:"headers"`
	Extra    map[string]any    `yaml:"extra"`
	Parts    []part            `yaml:"parts"`
	Level    level             `yaml:"level"`
	Shared   `yaml:",inline"`
}

type Shared struct {
	Retries int `yaml:"retries"`
}

type part struct {
	Size int `yaml:"size"`
	Sub  *part
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

type level int

func (l *level) UnmarshalText(text []byte) error {
	if string(text) != "high" {
		return leat.Hint(fmt.Errorf("%q is no level", text), "write high")
	}
	*l = 1
	return nil
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
headers: {a: 1, b: "2"}
extra: {n: 1, l: [true, null, 1.5], m: {k: v}}
parts: [{size: 0x9}, ]
level: high
retries: 3
`, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := everything{
		Text: "1.10", Yes: true, Int: 5, Small: 7, Ratio: 1, Wait: 90 * time.Second, Memory: 64 << 20,
		Dir: filepath.Join(dir, "below/it"), Password: "from a file",
		List:    []string{"a", "a: [b]", "7", "${TEXT}", "$5", "xy"},
		Headers: map[string]string{"a": "1", "b": "2"},
		Extra:   map[string]any{"n": 1, "l": []any{true, nil, 1.5}, "m": map[string]any{"k": "v"}},
		Parts:   []part{{Size: 9}}, Level: 1, Shared: Shared{Retries: 3},
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
		{"text unmarshaler", "level: low", `1:8: level: "low" is no level; write high`},
		{"field error", "parts:\n  - size: 1\n  - size: 10", `3:11: parts[1].size: is too large; give at most 9`},
		{"component error", "parts: [{size: 1, sub: {size: 10}}]", `1:9: parts[0]: parts have no parts; leave it out`},
		{"inline", "retrys: 3", `1:1: retrys: unknown key; did you mean "retries"?`},
		{"list item", "list: [a, {b: c}]", `1:11: list[1]: found a mapping, expected text`},
		{"map value", "headers:\n  a: [b]", `2:6: headers.a: found a list, expected text`},
		{"map twice", "headers:\n  a: b\n  a: c", `3:3: headers.a: duplicate key; the first is on line 2`},
		{"anything twice", "extra:\n  a:\n    b: 1\n    b: 2", `4:5: extra.a.b: duplicate key; the first is on line 3`},
		{"anything unset", "extra: {a: ['${NOTHING}']}", `1:13: extra.a[0]: the environment variable NOTHING is not set; set it, or give a default as in ${NOTHING:-default}`},
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

// TestAliases: many small aliases must not become a large value.
func TestAliases(t *testing.T) {
	var b strings.Builder
	b.WriteString("extra:\n  a0: &a0 [x]\n")
	for i := range 30 {
		fmt.Fprintf(&b, "  a%d: &a%d [*a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i)
	}
	var into everything
	_, err := read(t, b.String(), &into)
	if err == nil || !strings.Contains(err.Error(), "aliased too often") {
		t.Errorf("%v", err)
	}
	_, err = read(t, "extra: &e {a: *e}", &into)
	if err == nil || !strings.Contains(err.Error(), "nested too deeply") {
		t.Errorf("%v", err)
	}
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
