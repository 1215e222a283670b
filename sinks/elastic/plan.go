package elastic

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"leat"
)

// stateSource is what Elasticsearch holds of a document's state.
type stateSource struct {
	Document string    `json:"document"` // by encodeID
	Version  uint64    `json:"version"`
	Deleted  bool      `json:"deleted"`
	Chunks   int       `json:"chunks"`
	State    stateRest `json:"state"`
}

type stateRest struct {
	Source   string `json:"source,omitempty"`
	Tag      string `json:"tag,omitempty"`
	Title    string `json:"title,omitempty"`
	Metadata string `json:"metadata,omitempty"` // JSON in a string: any name, any depth, every digit
	Applied  int64  `json:"applied"`            // ms since 1970
	Sum      int64  `json:"sum"`                // see stateSource.sum
}

// chunkSource is what Elasticsearch holds of a chunk.
type chunkSource struct {
	Of      string `json:"of"`
	Version uint64 `json:"version"`
	Chunk   string `json:"chunk"`
	Start   int64  `json:"start"`
	Place   place  `json:"place"`
	// Its words stand in one of two places: those that are cut as Chinese too, in han.
	chunkWords
	Han *chunkWords `json:"han,omitempty"`
}

type chunkWords struct {
	Title   string   `json:"title,omitempty"`
	Heading []string `json:"heading,omitempty"`
	Text    string   `json:"text,omitempty"`
}

// words are in their place.
func (s *chunkSource) words() chunkWords {
	if s.Han != nil {
		return *s.Han
	}
	return s.chunkWords
}

func (s *chunkSource) setWords(w chunkWords) {
	if hasHan(w.Title) || hasHan(w.Text) || slices.ContainsFunc(w.Heading, hasHan) {
		s.Han = &w
	} else {
		s.chunkWords = w
	}
}

// hasHan reports whether a text has Chinese characters.
func hasHan(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= 0x2E80 && unicode.Is(unicode.Han, r) })
}

type place struct {
	Ordinal int   `json:"ordinal"`
	End     int64 `json:"end"`
	Tokens  int   `json:"tokens"`
	Page    int   `json:"page,omitempty"`
	Written int64 `json:"written"` // s since 1970
	Sum     int64 `json:"sum"`     // see chunkSource.sum
}

// markSource is what Elasticsearch holds of a version that waits for its last part.
type markSource struct {
	Version uint64 `json:"version"`
	Mark    mark   `json:"mark"`
}

type mark struct {
	Parts  int `json:"parts"`
	Chunks int `json:"chunks"`
}

// held is the version of a document that is searchable, or its tombstone.
type held struct {
	version            uint64
	chunks             int
	seqNo, primaryTerm int64 // of the write of the state
}

// plan is what a batch makes of one document.
type plan struct {
	id, hash  string
	revisions []int           // of the batch
	held      *held           // nil: the document is not known
	marks     map[uint64]mark // by version
	// What the batch changes:
	was      *held                       // the version held before
	write    map[uint64][]*leat.Revision // parts whose chunks are written, by version
	final    *leat.Revision              // the last part of the version that becomes the one held; nil: none does
	chunks   int                         // of that version
	ended    uint64                      // the version whose last of several parts came; its mark goes
	repeated bool                        // something came that was there already before the batch, or older
	state    stateSource                 // that the batch makes
	flip     *item                       // the write of the state
}

// validate finds what can never be written, before anything is.
func validate(revisions []leat.Revision) error {
	bad := func(r *leat.Revision, err error) error {
		return leat.Permanent(fmt.Errorf("%.200q version %d: %w", r.Document, r.Version, err))
	}
	for i := range revisions {
		r := &revisions[i]
		if r.Version > math.MaxInt64 {
			return bad(r, errors.New("the version is past 1<<63-1"))
		}
		if n := len(encodeID(r.Document)); n > maxID {
			return bad(r, leat.Hint(fmt.Errorf("an id of %d bytes is longer than Elasticsearch can sort by (%d)", n, maxID),
				"publish the document under a shorter id"))
		}
		for j := range r.Chunks {
			first := r.Chunks[0].Ordinal
			if r.Chunks[j].Ordinal != first+j || r.Part == 0 && first != 0 {
				return bad(r, fmt.Errorf("part %d: chunk %d has the ordinal %d", r.Part, j, r.Chunks[j].Ordinal))
			}
		}
	}
	return nil
}

// group makes a plan for each document of a batch, in the batch's order.
func group(revisions []leat.Revision) (plans []*plan) {
	of := map[string]*plan{}
	for i := range revisions {
		id := revisions[i].Document
		p := of[id]
		if p == nil {
			p = &plan{id: id, hash: hash(id), marks: map[uint64]mark{}, write: map[uint64][]*leat.Revision{}}
			of[id], plans = p, append(plans, p)
		}
		p.revisions = append(p.revisions, i)
	}
	return plans
}

// make works out what the revisions change, one after the other, and their outcomes.
func (p *plan) make(revisions []leat.Revision, outcomes []leat.Outcome) error {
	p.was = p.held
	for _, i := range p.revisions {
		r := &revisions[i]
		if r.Last && r.Part > 0 {
			p.ended = r.Version
		}
		again := p.held != nil && p.held.version == r.Version
		if p.held != nil && p.held.version > r.Version || again && !r.Again {
			p.repeated = p.repeated || p.final == nil
			if !again {
				outcomes[i] = leat.Superseded // I2
			}
			continue
		}
		m := p.marks[r.Version]
		switch {
		case again && r.Part == 0:
			m = mark{}
		case again && r.Part != m.Parts: // what comes once more after its mark is gone
			m = mark{Chunks: p.held.chunks}
		case !again && (r.Part > m.Parts || len(r.Chunks) > 0 && r.Chunks[0].Ordinal > m.Chunks):
			return leat.Permanent(leat.Hint(fmt.Errorf("%s version %d: part %d came without part %d", p.id, r.Version, r.Part, m.Parts),
				"the index was replaced while parts were under way: touch the document at its source or run `leat reindex`"))
		}
		m.Parts = max(m.Parts, r.Part+1)
		if n := len(r.Chunks); n > 0 {
			end := r.Chunks[n-1].Ordinal + 1
			if m.Chunks = max(m.Chunks, end); again {
				m.Chunks = end
			}
		}
		p.write[r.Version] = append(p.write[r.Version], r)
		if r.Last {
			delete(p.marks, r.Version)
			p.final, p.chunks = r, m.Chunks
			p.held = &held{version: r.Version, chunks: p.chunks}
			continue
		}
		p.marks[r.Version] = m
		if p.ended == r.Version { // and begins again
			p.ended = 0
		}
	}
	return nil
}

// items adds what is to be written: the chunks, then the state and marks.
func (p *plan) items(chunks, states []*item, now time.Time) (_, _ []*item, err error) {
	for version, parts := range p.write {
		if p.final != nil && version < p.final.Version {
			continue // superseded within the batch
		}
		if chunks, err = p.chunkItems(chunks, version, parts, now); err != nil {
			return nil, nil, err
		}
		m, waits := p.marks[version]
		if !waits {
			continue
		}
		to := address{ID: markID(p.hash, version), Routing: p.hash}
		if p.held == nil || p.held.version != version {
			// Two processes may bring the same parts: the number of them never falls.
			// Of a version that is written again it begins anew.
			to.Version, to.VersionType = new(int64(m.Parts)), "external_gte"
		}
		it, err := newItem(p.id, to, markSource{version, m})
		if err != nil {
			return nil, nil, err
		}
		states = append(states, it)
	}
	if p.final == nil {
		return chunks, states, nil
	}
	r := p.final
	p.state = stateSource{Document: encodeID(p.id), Version: r.Version, Deleted: r.Deleted, Chunks: p.chunks,
		State: stateRest{Source: r.Source, Applied: now.UnixMilli()}}
	if !r.Deleted {
		p.state.State.Tag, p.state.State.Title = r.Tag, r.Title
		if len(r.Metadata) > 0 {
			b, err := json.Marshal(r.Metadata)
			if err != nil {
				return nil, nil, leat.Permanent(fmt.Errorf("%s: metadata: %w", p.id, err))
			}
			p.state.State.Metadata = string(b)
		}
	}
	p.state.State.Sum = p.state.sum()
	// The server compares the versions (I2), so that it does not matter what
	// others have written since the state was read.
	to := address{ID: p.hash, Version: new(int64(r.Version)), VersionType: "external"}
	if r.Again {
		to.VersionType = "external_gte"
	}
	p.flip, err = newItem(p.id, to, p.state)
	return chunks, append(states, p.flip), err
}

// chunkItems adds the chunks of parts of one version. Of what comes twice in
// the batch the last is written.
func (p *plan) chunkItems(items []*item, version uint64, parts []*leat.Revision, now time.Time) ([]*item, error) {
	written := map[int]bool{}
	for _, r := range slices.Backward(parts) {
		for i := range r.Chunks {
			ch := &r.Chunks[i]
			if written[ch.Ordinal] || p.final != nil && version == p.final.Version && ch.Ordinal >= p.chunks {
				continue
			}
			if len(parts) > 1 {
				written[ch.Ordinal] = true
			}
			source := chunkSource{Of: p.hash, Version: version, Chunk: ch.ID, Start: ch.Start,
				Place: place{Ordinal: ch.Ordinal, End: ch.End, Tokens: ch.Tokens, Page: ch.Page, Written: now.Unix()}}
			source.setWords(chunkWords{r.Title, ch.Heading, ch.Text})
			id := chunkID(p.hash, version, ch.Ordinal)
			source.Place.Sum = source.sum(id)
			it, err := newItem(p.id, address{ID: id, Routing: p.hash}, source)
			if err != nil {
				return nil, err
			}
			items = append(items, it)
		}
	}
	return items, nil
}

// stale is what is to be removed, of what this process knows: the mark of a
// version that is whole, the version that was held, and the one that another
// process has outrun.
func (p *plan) stale() (items []*item) {
	if p.ended != 0 {
		items = append(items, deletion(address{ID: markID(p.hash, p.ended), Routing: p.hash}))
	}
	if p.final == nil {
		return items
	}
	remove := func(version uint64, chunks int) {
		for i := range chunks {
			items = append(items, deletion(address{ID: chunkID(p.hash, version, i), Routing: p.hash}))
		}
	}
	if p.was != nil && !p.final.Again { // of which leftovers finds all
		remove(p.was.version, p.was.chunks)
	}
	if p.held.version > p.final.Version {
		remove(p.final.Version, p.chunks)
	}
	return items
}
