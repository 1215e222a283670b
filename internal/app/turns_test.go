package app

import (
	"testing"

	"go.uber.org/goleak"

	"leat/internal/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPieces: what a live change may have to wait for is small, whatever the
// size of documents, and nothing is left out.
func TestPieces(t *testing.T) {
	for _, test := range []struct {
		records, bytes int // of a batch; bytes of each
		want           []int
	}{
		{1, 0, []int{1}},
		{250, 100, []int{100, 100, 50}},
		{10, pieceBytes / 4, []int{4, 4, 2}},
		{3, pieceBytes, []int{1, 1, 1}},
		{2, 4 * pieceBytes, []int{1, 1}},
	} {
		batch := make([]bus.Record, test.records)
		for i := range batch {
			batch[i].Value = make([]byte, test.bytes)
		}
		for _, want := range test.want {
			piece := firstPiece(batch)
			if len(piece) != want {
				t.Errorf("%d records of %d bytes: a piece of %d, want %d", test.records, test.bytes, len(piece), want)
			}
			batch = batch[len(piece):]
		}
		if len(batch) > 0 {
			t.Errorf("%d records of %d bytes: %d are left", test.records, test.bytes, len(batch))
		}
	}
}
