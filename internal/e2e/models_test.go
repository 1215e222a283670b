package e2e

import (
	"fmt"
	"testing"

	"leat/embedder/embeddertest"
)

// nullModel is an embedder that costs nothing: a server in this process whose
// vectors come from a hash of the text.
func nullModel(t *testing.T) string {
	s := embeddertest.Start(64)
	t.Cleanup(s.Close)
	return fmt.Sprintf("embedder:\n  openai:\n    url: %s\n    model: hash\n    dimension: %d\n", s.BaseURL, s.Dimension)
}
