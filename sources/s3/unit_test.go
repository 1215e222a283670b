package s3

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"leat"
)

// TestUnescape: a key that may have been escaped comes with what it then is.
func TestUnescape(t *testing.T) {
	for key, want := range map[string]string{
		"a.md":           "",
		"a b+c":          "", // a space was never escaped
		"文%20件":          "",
		"a+b.md":         "a b.md",
		"a%2Fb.md":       "a/b.md",
		"deep/red+x.jpg": "deep/red x.jpg",
		"100%":           "",
		"%FF":            "",
		"%20":            "",
		"%2e%2e%2Fa":     "",
		"%E6%96%87.md":   "文.md",
	} {
		if plain, ok := unescape(key); ok != (want != "") || ok && plain != want {
			t.Errorf("%s: %q, %v, not %q", key, plain, ok, want)
		}
	}
}

func TestIDs(t *testing.T) {
	s := &Source{name: "my docs"}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringN(1, 50, 1024).Draw(t, "key")
		if back, ok := s.key(s.id(key)); !ok || back != key {
			t.Errorf("%q became %q, %v", key, back, ok)
		}
	})
	for _, id := range []string{"s3:my%20docs/", "s3:other/a", "s3:my%20docs/%zz", "s3:my%20docs/a b", "s3:my%20docs/a%2Fb", "folder:my%20docs/a"} {
		if key, ok := s.key(id); ok {
			t.Errorf("%s is %q", id, key)
		}
	}
}

func TestMediaType(t *testing.T) {
	for contentType, want := range map[string]string{
		"":                            "",
		"nonsense":                    "nonsense",
		";":                           "",
		"application/octet-stream":    "",
		"binary/octet-stream":         "",
		"text/plain":                  "",
		"text/plain; charset=gb18030": "text/plain; charset=gb18030",
		"text/markdown":               "text/markdown",
		"Application/Octet-Stream":    "",
		"application/pdf":             "application/pdf",
	} {
		if got := mediaType(contentType); got != want {
			t.Errorf("%q: %q, not %q", contentType, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Config{Endpoint: "https://s3.example:9000/", AccessKey: "a", SecretKey: "s", Bucket: "docs"}
	for name, test := range map[string]struct {
		change func(*Config)
		fields string
	}{
		"good":         {func(*Config) {}, ""},
		"host":         {func(c *Config) { c.Endpoint = "minio:9000" }, ""},
		"empty":        {func(c *Config) { *c = Config{} }, "endpoint access_key secret_key bucket"},
		"path":         {func(c *Config) { c.Endpoint += "docs" }, "endpoint"},
		"user":         {func(c *Config) { c.Endpoint = "https://a:s@s3.example" }, "endpoint"},
		"scheme":       {func(c *Config) { c.Endpoint = "s3://docs" }, "endpoint"},
		"bucket":       {func(c *Config) { c.Bucket = "docs/kb" }, "bucket"},
		"prefix":       {func(c *Config) { c.Prefix = strings.Repeat("x", 1025) }, "prefix"},
		"include":      {func(c *Config) { c.Include = []string{"["} }, "include[0]"},
		"reconcile":    {func(c *Config) { c.Reconcile = 1 }, "reconcile"},
		"ca of plain":  {func(c *Config) { c.Endpoint, c.CAFile = "http://minio:9000", "ca.pem" }, "ca_file"},
		"ca of secure": {func(c *Config) { c.CAFile = "ca.pem" }, ""},
	} {
		c := good
		test.change(&c)
		var fields []string
		if err := c.Validate(); err != nil {
			for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
				var f *leat.FieldError
				if errors.As(e, &f) {
					fields = append(fields, f.Field)
				}
			}
		}
		if got := strings.Join(fields, " "); got != test.fields {
			t.Errorf("%s: %q, not %q", name, got, test.fields)
		}
	}
}
