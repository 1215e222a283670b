// Package text reads plain text. It holds about 100 KiB of a document of any
// size; its text is the document's own, in UTF-8.
package text

import (
	"context"
	"io"
	"strings"

	"leat/chunker/extract"
)

// Extract is an [extract.Extractor].
func Extract(ctx context.Context, r io.Reader, o extract.Options) (extract.Content, error) {
	r, err := extract.Decode(r, o.Charset)
	if err != nil {
		return extract.Content{}, err
	}
	return extract.Content{Blocks: func(yield func(extract.Block, error) bool) {
		lines := extract.NewLines(r)
		blank := true
		for {
			line, begins, err := lines.Next()
			if err == nil {
				err = ctx.Err()
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(extract.Block{}, err)
				return
			}
			empty := begins && strings.TrimSpace(line) == ""
			if !yield(extract.Block{Text: line, Continued: empty || !blank || !begins}, nil) {
				return
			}
			blank = empty
		}
	}}, nil
}
