package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"leat/embedder/embeddertest"
	"leat/internal/testenv/local"
)

// builtinModel is the model that comes with leat.
func builtinModel(t *testing.T) string {
	if testing.Short() {
		t.Skip("left out under -short: needs the built-in model")
	}
	cache, err := local.Cache()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "model")); err != nil {
		t.Fatalf("the built-in model is missing: run `make model` (%v)", err)
	}
	return "embedder:\n  builtin: {}\n"
}

// nullModel is an embedder that costs nothing: a server in this process whose
// vectors come from a hash of the text.
func nullModel(t *testing.T) string { return nullModelOf(t, 64) }

func nullModelOf(t *testing.T, dimension int) string {
	return nullModelNamed(t, fmt.Sprintf("hash-%d", dimension), dimension)
}

func nullModelNamed(t *testing.T, name string, dimension int) string {
	s := embeddertest.Start(dimension)
	t.Cleanup(s.Close)
	return fmt.Sprintf("embedder:\n  openai:\n    url: %s\n    model: %s\n    dimension: %d\n", s.BaseURL, name, dimension)
}
