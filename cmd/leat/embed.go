package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"leat"
)

func (c *cli) embedCommand() *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use:     "embed",
		Short:   "Embed texts, one a line from standard input, one JSON array a line",
		Example: "  echo which umbrella is red | leat embed --kind query",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k := leat.Kind(kind)
			if k != leat.Query && k != leat.Passage {
				return usageError{fmt.Errorf("--kind %q: want query or passage", kind)}
			}
			a, err := c.loadOrDefault(cmd)
			if err != nil {
				return err
			}
			model, err := a.Embedder()
			if err != nil {
				return err
			}
			defer model.Close()
			return c.embedLines(cmd.Context(), model, k)
		},
	}
	cmd.Flags().StringVar(&kind, "kind", string(leat.Passage), "what the texts are: query or passage")
	return cmd
}

// embedBatch is how many lines are embedded together where they come fast.
const embedBatch = 64

func (c *cli) embedLines(ctx context.Context, model leat.Embedder, kind leat.Kind) error {
	in := bufio.NewReaderSize(c.in, 64<<10)
	out := bufio.NewWriter(c.out)
	var batch []string
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		vectors, err := model.Embed(ctx, kind, batch)
		if err != nil {
			return err
		}
		batch = batch[:0]
		for _, v := range vectors {
			if err := writeVector(out, v); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("read texts: %w", err)
		}
		if err == nil || line != "" {
			batch = append(batch, strings.TrimRight(line, "\r\n"))
		}
		// A line that another program waits on is answered at once.
		if len(batch) == embedBatch || in.Buffered() == 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// writeVector writes v as one line of JSON, each number with the digits that a
// float32 needs.
func writeVector(w *bufio.Writer, v []float32) error {
	b := []byte{'['}
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(x), 'g', -1, 32)
	}
	_, err := w.Write(append(b, ']', '\n'))
	return err
}
