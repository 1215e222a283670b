package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"leat"
	"leat/chunker"
)

func (c *cli) extractCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "extract FILE…",
		Short: "Print the text of local files as leat reads them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachFile(args, func(name string, doc leat.Document, f *os.File) error {
				return c.extract(cmd.Context(), name, doc, f)
			})
		},
	}
}

func (c *cli) extract(ctx context.Context, name string, doc leat.Document, f *os.File) error {
	content, err := chunker.Open(ctx, doc, f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var text strings.Builder
	for b, err := range content.Blocks {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if c.json() {
			text.WriteString(b.Text)
		} else if _, err := io.WriteString(c.out, b.Text); err != nil {
			return err
		}
	}
	if c.json() {
		return c.print(map[string]string{"document": name, "media_type": content.MediaType, "title": content.Title, "text": text.String()})
	}
	return nil
}

func (c *cli) chunkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "chunk FILE…",
		Short: "Print the chunks of local files, one JSON object a line",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			a, err := c.loadOrDefault(cmd)
			if err != nil {
				return err
			}
			ch, closeChunker, err := a.Chunker()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, closeChunker()) }()
			return eachFile(args, func(name string, doc leat.Document, f *os.File) error {
				_, err := ch.Chunk(cmd.Context(), name, doc, f, func(_ chunker.Info, k leat.Chunk) error {
					if k.Heading == nil {
						k.Heading = []string{}
					}
					return c.print(chunkLine{name, k.Ordinal, k.Start, k.End, k.Tokens, k.Heading, k.Page, k.Text})
				})
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			})
		},
	}
}

// chunkLine is what `leat chunk` prints of a chunk.
type chunkLine struct {
	Document string   `json:"document"`
	Ordinal  int      `json:"ordinal"`
	Start    int64    `json:"start"`
	End      int64    `json:"end"`
	Tokens   int      `json:"tokens"`
	Heading  []string `json:"heading"`
	Page     int      `json:"page"`
	Text     string   `json:"text"`
}

// eachFile opens local files as documents, as a folder source gives them.
func eachFile(names []string, f func(name string, doc leat.Document, file *os.File) error) error {
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s is a directory; name files", name)
		}
		if err == nil {
			err = f(name, leat.Document{Ref: &leat.Ref{Name: filepath.Base(name), Size: info.Size()}}, file)
		}
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
