package elastic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"leat"
)

// generations are the indices NAME-gN under the alias NAME.
type generations struct {
	*client
	name string
	log  *slog.Logger
}

// OpenGenerations gives access to the generations of a pipeline. It asks nothing
// of the cluster yet.
func OpenGenerations(cfg Config, name string, log *slog.Logger) (leat.Generations, error) {
	// What Elasticsearch would read as a pattern, a list, a date or an exclusion is
	// no name of an index: nothing else may be dropped.
	if name == "" || strings.ContainsAny(name[:1], "-_+.") || strings.ContainsAny(name, `*,<>?"|\/ #:%`) {
		return nil, leat.Hint(fmt.Errorf("elasticsearch: %q cannot name an index", name), "use lower-case letters, digits and hyphens between them")
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	return &generations{client: c, name: name, log: log}, nil
}

// Close implements [leat.Generations].
func (g *generations) Close() error {
	g.close()
	return nil
}

// aliased lists the indices that the alias leads to.
func (g *generations) aliased(ctx context.Context) ([]string, error) {
	var found map[string]struct{}
	err := g.call(ctx, http.MethodGet, path("_alias", g.name), nil, &found)
	var r *refusal
	if errors.As(err, &r) && r.Status == http.StatusNotFound {
		return nil, nil
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	return names, err
}

// Live implements [leat.Generations].
func (g *generations) Live(ctx context.Context) (int, error) {
	on, err := g.aliased(ctx)
	if err != nil || len(on) == 0 {
		return 0, g.wrap("read the alias", err)
	}
	digits, ours := strings.CutPrefix(on[0], g.name+"-g")
	if n, err := strconv.Atoi(digits); len(on) == 1 && ours && err == nil && physical(g.name, n) == on[0] {
		return n, nil
	}
	slices.Sort(on)
	return 0, g.wrap("read the alias", leat.Hint(fmt.Errorf("it leads to %s: %w", strings.Join(on, ", "), leat.ErrMismatch),
		"make it lead to one of the indices %s-gN and no other", g.name))
}

func (g *generations) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("elasticsearch: %s %s: %w", what, g.name, err)
}

// Switch implements [leat.Generations].
func (g *generations) Switch(ctx context.Context, n int) (err error) {
	target := physical(g.name, n)
	defer func() { err = g.wrap(fmt.Sprintf("switch to generation %d of", n), err) }()
	if _, err = g.inspect(ctx, target); err != nil {
		return err
	}
	// What cannot be searched shall not take the place of what can.
	if err = g.searchable(ctx, target, target); err != nil {
		return err
	}
	const tries = 5 // where others switch at the same time
	for range tries {
		var on []string
		if on, err = g.aliased(ctx); err != nil {
			return err
		}
		if slices.Equal(on, []string{target}) {
			return g.searchable(ctx, g.name, target)
		}
		if err = g.move(ctx, on, target); err != nil {
			return err
		}
	}
	return leat.Hint(errors.New("the alias does not stay where it is put"), "find out what else switches it, and try again")
}

// move makes the alias lead from some indices to another, in one step.
func (g *generations) move(ctx context.Context, from []string, to string) error {
	type m = map[string]any
	actions := []m{{"add": m{"index": to, "alias": g.name}}}
	for _, index := range from {
		if index != to {
			actions = append(actions, m{"remove": m{"index": index, "alias": g.name}})
		}
	}
	var answer struct{ Acknowledged bool }
	err := g.call(ctx, http.MethodPost, "/_aliases", m{"actions": actions}, &answer)
	switch {
	case is(err, "invalid_alias_name_exception"):
		return leat.Hint(err, "there is an index of the name %q: remove it, or give the pipeline another name", g.name)
	case err == nil && !answer.Acknowledged:
		return leat.Hint(errors.New("not all nodes know of it yet"), "try again; if this goes on, look at the cluster's health (GET _cluster/health)")
	case err == nil:
		g.log.InfoContext(ctx, "the alias was moved", "alias", g.name, "from", from, "to", to)
	}
	return err
}

// searchable searches by a name and fails unless the index that should answers.
func (g *generations) searchable(ctx context.Context, by, index string) error {
	var answer struct {
		Hits struct {
			Hits []struct {
				Index string `json:"_index"`
			}
		}
	}
	err := g.call(ctx, http.MethodPost, path(by)+"/_search?allow_partial_search_results=false", map[string]any{"size": 1, "_source": false}, &answer)
	if err != nil {
		return err
	}
	for _, h := range answer.Hits.Hits {
		if h.Index != index {
			return fmt.Errorf("a search of %s finds what is in %s", by, h.Index)
		}
	}
	return nil
}

// Drop implements [leat.Generations].
func (g *generations) Drop(ctx context.Context, n int) (err error) {
	target := physical(g.name, n)
	defer func() { err = g.wrap(fmt.Sprintf("drop generation %d of", n), err) }()
	on, err := g.aliased(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(on, target) {
		return leat.Hint(errors.New("it is the live one"), "switch to another one first: `leat reindex` or `leat reindex rollback`")
	}
	m, err := g.inspect(ctx, target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, leat.ErrMismatch) && m.Format > 0: // of another leat
	case errors.Is(err, leat.ErrMismatch):
		return leat.Hint(err, "leat did not make it: remove it by hand")
	case err != nil:
		return err
	}
	err = g.call(ctx, http.MethodDelete, path(target)+"?expand_wildcards=none", nil, nil)
	if is(err, "index_not_found_exception") {
		return nil
	}
	if err == nil {
		g.log.InfoContext(ctx, "an index was removed", "index", target)
	}
	return err
}
