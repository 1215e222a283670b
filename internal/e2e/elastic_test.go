package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// elasticIndex reads an index of Elasticsearch by its REST interface.
type elasticIndex struct{ url, name string }

func (x elasticIndex) call(method, path string, body, into any) error {
	var in bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&in).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, x.url+path, &in)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		var text bytes.Buffer
		_, _ = text.ReadFrom(res.Body)
		return fmt.Errorf("%s %s: %s: %.300s", method, path, res.Status, text.String())
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// elasticEntry is a state or a chunk, told apart by their ids.
type elasticEntry struct {
	Document string
	Version  uint64
	Deleted  bool
	Chunks   int
	State    struct{ Title, Tag, Metadata string }
	Chunk    string
	Start    int
	Text     string
	Han      struct{ Text string } // in place of Text where that is Chinese
	Place    struct{ Ordinal, End int }
}

// entries reads all that the index holds, by id.
func (x elasticIndex) entries() (map[string]elasticEntry, error) {
	var ignored any
	if err := x.call("POST", "/"+x.name+"/_refresh", nil, &ignored); err != nil {
		return nil, err
	}
	type page struct {
		Scroll string `json:"_scroll_id"`
		Hits   struct {
			Hits []struct {
				ID     string       `json:"_id"`
				Source elasticEntry `json:"_source"`
			}
		}
	}
	all := map[string]elasticEntry{}
	var p page
	err := x.call("POST", "/"+x.name+"/_search?scroll=1m", map[string]any{"size": 1000, "sort": []string{"_doc"}}, &p)
	for err == nil && len(p.Hits.Hits) > 0 {
		for _, h := range p.Hits.Hits {
			all[h.ID] = h.Source
		}
		scroll := p.Scroll
		p = page{}
		err = x.call("POST", "/_search/scroll", map[string]any{"scroll": "1m", "scroll_id": scroll}, &p)
	}
	return all, err
}

// version of a document's state.
func (x elasticIndex) version(_ context.Context, id string) (uint64, error) {
	var found struct {
		Hits struct {
			Hits []struct {
				Source elasticEntry `json:"_source"`
			}
		}
	}
	query := map[string]any{"query": map[string]any{"term": map[string]any{"document": id}}}
	if err := x.call("POST", "/"+x.name+"/_search", query, &found); err != nil {
		return 0, err
	}
	for _, h := range found.Hits.Hits {
		return h.Source.Version, nil
	}
	return 0, fmt.Errorf("no %s", id)
}

// documents makes documents of the entries, and says what belongs to none.
func (x elasticIndex) documents() (all map[string]*storedDocument, orphans []string, err error) {
	entries, err := x.entries()
	if err != nil {
		return nil, nil, err
	}
	all, byHash := map[string]*storedDocument{}, map[string]*storedDocument{}
	for id, e := range entries {
		if strings.Contains(id, ".") {
			continue
		}
		d := &storedDocument{version: e.Version, deleted: e.Deleted, title: e.State.Title, tag: e.State.Tag, stated: e.Chunks}
		if e.State.Metadata != "" {
			if err := json.Unmarshal([]byte(e.State.Metadata), &d.metadata); err != nil {
				return nil, nil, fmt.Errorf("%s: metadata: %w", e.Document, err)
			}
		}
		all[e.Document], byHash[id] = d, d
	}
	for id, e := range entries {
		hash, _, chunk := strings.Cut(id, ".")
		if !chunk {
			continue
		}
		d := byHash[hash]
		if d == nil || d.deleted || d.version != e.Version || strings.Count(id, ".") != 2 {
			orphans = append(orphans, id)
			continue
		}
		d.chunks = append(d.chunks, storedChunk{id: e.Chunk, version: e.Version, ordinal: e.Place.Ordinal, from: e.Start, to: e.Place.End, data: []byte(e.Text + e.Han.Text)})
	}
	for _, d := range all {
		slices.SortFunc(d.chunks, func(a, b storedChunk) int { return a.ordinal - b.ordinal })
	}
	return all, orphans, nil
}
