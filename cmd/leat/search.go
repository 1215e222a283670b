package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"leat/internal/app"
	"leat/internal/search"
)

func (c *cli) searchCommand() *cobra.Command {
	var mode string
	var limit int
	cmd := &cobra.Command{
		Use:   "search QUERY… | search -",
		Short: "Search by words and by meaning",
		Long: `Search finds the chunks that answer a query, by their words (text), by their
meaning (vector) or by both (hybrid). "search -" reads one query a line from
standard input and answers one JSON object a line, the model loaded once.`,
		Example: `  leat search which umbrella is red
  leat search --mode text 雨伞
  leat search - < questions.txt`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			m, err := search.ParseMode(mode)
			if err != nil {
				return usageError{err}
			}
			if limit < 1 || limit > 1000 {
				return usageError{fmt.Errorf("--limit %d: want 1 to 1000", limit)}
			}
			a, err := c.load()
			if err != nil {
				return err
			}
			s, closeSearcher, err := a.Searcher(cmd.Context(), m)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, closeSearcher()) }()
			if len(args) == 1 && args[0] == "-" {
				return c.searchLines(cmd.Context(), s, m, limit)
			}
			query := strings.TrimSpace(strings.Join(args, " "))
			if query == "" {
				return usageError{fmt.Errorf("the query is empty")}
			}
			r, err := s.Search(cmd.Context(), query, m, limit)
			if err != nil {
				return err
			}
			if c.json() {
				return c.print(r)
			}
			c.printHits(r)
			return nil
		},
	}
	cmd.Flags().StringVar(&mode, "mode", "hybrid", "text, vector or hybrid")
	cmd.Flags().IntVarP(&limit, "limit", "n", 10, "how many chunks to print")
	return cmd
}

// searchLines answers one query a line; each answer is written at once, so that
// another program can converse with it.
func (c *cli) searchLines(ctx context.Context, s *app.Searcher, m search.Mode, limit int) error {
	in := bufio.NewScanner(c.in)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		query := strings.TrimSpace(in.Text())
		if query == "" {
			continue
		}
		r, err := s.Search(ctx, query, m, limit)
		if err != nil {
			return err
		}
		if err := c.print(r); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read queries: %w", err)
	}
	return nil
}

func (c *cli) printHits(r search.Result) {
	if len(r.Hits) == 0 {
		fmt.Fprintln(c.err, "nothing found")
		return
	}
	for i, h := range r.Hits {
		title := h.Title
		if title == "" {
			title = h.Document
		}
		fmt.Fprintf(c.out, "%2d. %s  %.3f\n", i+1, title, h.Score)
		where := fmt.Sprintf("bytes %d–%d", h.Location.Start, h.Location.End)
		heading := h.Location.Heading
		if len(heading) > 0 && heading[0] == title {
			heading = heading[1:]
		}
		if len(heading) > 0 {
			where = strings.Join(heading, " › ") + ", " + where
		}
		if h.Location.Page > 0 {
			where = fmt.Sprintf("page %d, %s", h.Location.Page, where)
		}
		fmt.Fprintf(c.out, "    %s (%s)\n", h.Document, where)
		fmt.Fprintf(c.out, "    %s\n", excerpt(h.Text, 300))
	}
	fmt.Fprintf(c.err, "%d hits, %s, %.1f ms\n", len(r.Hits), r.Mode, r.TookMS)
}

// excerpt is text on one line, cut after at most n runes.
func excerpt(text string, n int) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return string(runes)
}
