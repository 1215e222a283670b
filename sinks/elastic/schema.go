package elastic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"leat"
)

// format is kept in the mapping's _meta. Raise it with any change of what an
// index holds: there are no migrations, the index is rebuilt from its sources.
const format = 4

// How soon searches see a durable change: at once, unless a batch was shown less
// than showEvery ago; then after refreshInterval at the latest.
// docs/adr/004-elasticsearch.md has what this costs.
const (
	showEvery       = 100 * time.Millisecond
	refreshInterval = "500ms"
)

// An index holds three kinds of Elasticsearch documents, told apart by their
// ids; those of one leat document lie in one shard (routing).
//
//   - HASH, a state: which version of a document is held, or its tombstone. It
//     is written with that version as its external version, so that
//     Elasticsearch itself refuses an older one (I2), and never deleted, since
//     Elasticsearch forgets the versions of what is deleted after a minute.
//   - HASH.VERSION.ORDINAL, a chunk: searchable when its version is its
//     document's (I4), and from then on only written over with the same, by that
//     version again.
//   - HASH.VERSION, a mark: how many parts of a version that waits for its last
//     one are there.
//
// Nothing is indexed but what is searched: a chunk's words, in one field, those of
// a chunk with Chinese in another too. All that a search needs to know of what it
// finds has doc values: to read a row's id means to unpack its source.
func mapping(chinese analysis) map[string]any {
	properties := map[string]any{
		"document": map[string]any{"type": "keyword"}, // of a state: the id, see encodeID
		"version":  map[string]any{"type": "long"},
		"deleted":  map[string]any{"type": "boolean"},
		"chunks":   map[string]any{"type": "long"},
		"state":    map[string]any{"type": "object", "enabled": false},
		"mark":     map[string]any{"type": "object", "enabled": false},
		"of":       map[string]any{"type": "keyword", "index": false}, // of a chunk: its document's hash
		"chunk":    map[string]any{"type": "keyword"},
		"start":    map[string]any{"type": "long"},
		"place":    map[string]any{"type": "object", "enabled": false},
		"words":    map[string]any{"type": "text", "index_options": "freqs", "analyzer": "leat_words"},
	}
	// What has no Chinese in it is not cut by the plugin, which costs as much as
	// all else: its words lie apart.
	han := []string{"words"}
	if chinese == smartcn {
		han = append(han, "chinese")
		properties["chinese"] = map[string]any{"type": "text", "index_options": "freqs", "analyzer": "smartcn"}
	}
	inner := map[string]any{}
	for _, field := range []string{"title", "heading", "text"} {
		properties[field] = map[string]any{"type": "text", "index": false, "copy_to": "words"}
		inner[field] = map[string]any{"type": "text", "index": false, "copy_to": han}
	}
	properties["han"] = map[string]any{"properties": inner}
	return map[string]any{
		"dynamic":    "strict",
		"_meta":      map[string]any{"leat": meta{Format: format, Analysis: chinese}},
		"properties": properties,
	}
}

type meta struct {
	Format   int      `json:"format"`
	Analysis analysis `json:"analysis"`
}

// analysis is how Chinese is cut, best first.
type analysis string

const (
	smartcn  analysis = "smartcn"  // characters, pairs and, by the plugin, words
	cjk      analysis = "cjk"      // characters and pairs
	standard analysis = "standard" // characters
)

// settings of an index. Words of scripts with spaces are folded and stemmed in
// all of them.
func settings(cfg Config, chinese analysis) map[string]any {
	chain := func(cut ...string) map[string]any {
		return map[string]any{"type": "custom", "tokenizer": "standard",
			"filter": slices.Concat([]string{"cjk_width", "lowercase", "asciifolding"}, cut, []string{"leat_stem"})}
	}
	filters := map[string]any{
		"leat_stem": map[string]any{"type": "stemmer", "language": "porter2"},
		"leat_han":  map[string]any{"type": "keep_types", "types": []string{"<IDEOGRAPHIC>", "<HIRAGANA>"}},
	}
	analyzers := map[string]any{"leat_words": chain(), "leat_pairs": chain()}
	if chinese != standard {
		for name, singles := range map[string]bool{"leat_all": true, "leat_pairs": false} {
			filters[name] = map[string]any{"type": "cjk_bigram", "ignored_scripts": []string{"hangul"}, "output_unigrams": singles}
		}
		analyzers["leat_words"], analyzers["leat_pairs"] = chain("leat_all"), chain("leat_pairs")
		analyzers["leat_singles"] = chain("leat_han")
	}
	return map[string]any{
		"index": map[string]any{
			"number_of_shards": cfg.shards(), "number_of_replicas": cfg.replicas(),
			"refresh_interval": refreshInterval,
			// Segments as small as a refresh makes them count as what they are: else
			// all below 2 MB are merged again and again, at a quadratic cost.
			"merge": map[string]any{"policy": map[string]any{"floor_segment": "64kb"}},
		},
		"analysis": map[string]any{"filter": filters, "analyzer": analyzers},
	}
}

// physical is the name of a generation's index.
func physical(name string, generation int) string { return fmt.Sprintf("%s-g%d", name, generation) }

// create makes the index unless it is there.
func (x *Index) create(ctx context.Context, cfg Config) (err error) {
	m, err := x.inspect(ctx, x.target)
	if x.analysis = m.Analysis; err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, chinese := range []analysis{smartcn, cjk, standard} {
		body := map[string]any{"settings": settings(cfg, chinese), "mappings": mapping(chinese)}
		if err = x.template(ctx, body); err == nil {
			err = x.call(ctx, http.MethodPut, path(x.target), body, nil)
		}
		if is(err, "resource_already_exists_exception") { // another process came first
			err = nil
		}
		var r *refusal
		if err == nil || !errors.As(err, &r) || r.Status != http.StatusBadRequest || !strings.Contains(r.Reason, "failed to find") {
			break // else a part of the analysis is not installed
		}
	}
	if err != nil {
		return fmt.Errorf("create the index: %w", err)
	}
	m, err = x.inspect(ctx, x.target)
	x.analysis = m.Analysis
	return err
}

// template names the pipeline's indices as what Elasticsearch must not make by
// itself: whoever removes one while leat writes shall not get one with guessed
// fields in its place.
func (x *Index) template(ctx context.Context, body map[string]any) error {
	var patterns []string
	for digit := 1; digit <= 9; digit++ {
		patterns = append(patterns, fmt.Sprintf("%s-g%d*", x.name, digit))
	}
	err := x.call(ctx, http.MethodPut, path("_index_template", "leat-"+x.name), map[string]any{
		"index_patterns": patterns, "priority": 500, "allow_auto_create": false, "template": body,
	}, nil)
	var r *refusal
	if errors.As(err, &r) && r.Status == http.StatusForbidden {
		x.log.WarnContext(ctx, "no index template was made: if the index is removed while leat writes, Elasticsearch makes one that leat cannot use",
			"index", x.target, "error", err, "hint", "give the account the cluster privilege manage_index_templates")
		return nil
	}
	return err
}

// inspect returns what an index says of itself. It fails with fs.ErrNotExist
// where it is not there and leat.ErrMismatch where it is not one of this program's.
func (c *client) inspect(ctx context.Context, index string) (meta, error) {
	var found map[string]struct {
		Mappings struct {
			Meta struct{ Leat meta } `json:"_meta"`
		}
	}
	err := c.call(ctx, http.MethodGet, path(index, "_mapping"), nil, &found)
	switch {
	case is(err, "index_not_found_exception"):
		return meta{}, fmt.Errorf("no index %s: %w", index, fs.ErrNotExist)
	case err != nil:
		return meta{}, err
	}
	entry, there := found[index]
	if !there {
		return meta{}, leat.Hint(fmt.Errorf("%s is an alias, not an index: %w", index, leat.ErrMismatch), "remove the alias, or give the pipeline another name")
	}
	m := entry.Mappings.Meta.Leat
	if m.Format != format {
		return m, leat.Hint(fmt.Errorf("index %s has the format %d, this program reads %d: %w", index, m.Format, format, leat.ErrMismatch),
			"use the leat that wrote it, or remove it and run `leat reindex` to build it again")
	}
	return m, nil
}
