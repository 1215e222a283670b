package elastic

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"leat"
)

func TestValidate(t *testing.T) {
	good := Config{URLs: []string{"https://es1:9200", "http://[::1]:9200/below"}, User: "leat", Password: "secret", Shards: 3, Replicas: new(int)}
	if err := good.Validate(); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	for field, c := range map[string]Config{
		"urls":     {},
		"urls[0]":  {URLs: []string{"es1:9200"}},
		"urls[1]":  {URLs: []string{"http://es1:9200", "http://leat:secret@es2:9200"}},
		"api_key":  {URLs: []string{"http://es1:9200"}, APIKey: "key", User: "leat"},
		"user":     {URLs: []string{"http://es1:9200"}, Password: "secret"},
		"shards":   {URLs: []string{"http://es1:9200"}, Shards: 2000},
		"replicas": {URLs: []string{"http://es1:9200"}, Replicas: new(-1)},
	} {
		err := c.Validate()
		var f *leat.FieldError
		if !errors.As(err, &f) || f.Field != field || f.Hint == "" {
			t.Errorf("%s: got %v", field, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password shows: %v", field, err)
		}
	}
}

// An id as it is kept comes back, and is sorted and begins as the id does.
func TestEncodeID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		a, b := part.Draw(t, "a"), part.Draw(t, "b")
		if got := decodeID(encodeID(a)); got != a {
			t.Fatalf("%q comes back as %q", a, got)
		}
		if strings.Compare(a, b) != strings.Compare(encodeID(a), encodeID(b)) {
			t.Fatalf("%q and %q are sorted another way", a, b)
		}
		if !strings.HasPrefix(encodeID(a+b), encodeID(a)) {
			t.Fatalf("%q has not the prefix %q", a+b, a)
		}
	})
}
