// Package chunker cuts documents into chunks: pieces of their text, of a size
// the embedding model handles well, that begin and end where the text does.
//
// A document passes three steps, streaming, in memory that does not depend on
// its size. A format of package extract turns it into blocks. The blocks are
// divided into units, sentences as a rule. A segmenter puts units together
// into chunks so that structure and size fit best; where it cuts depends on the
// text near the cut alone, so an edit changes the chunks around it and no
// others.
package chunker

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/cespare/xxhash/v2"

	"leat"
	"leat/chunker/extract"
	"leat/chunker/extract/html"
	"leat/chunker/extract/markdown"
	"leat/chunker/extract/text"
)

// Formats is what leat reads.
var Formats = extract.Registry{
	{MediaType: "text/markdown", Aliases: []string{"text/x-markdown"}, Extensions: []string{".md", ".markdown", ".mdown", ".mkd", ".mdx"}, Textual: true, Extract: markdown.Extract},
	{MediaType: "text/html", Aliases: []string{"application/xhtml+xml"}, Extensions: []string{".html", ".htm", ".xhtml"}, Textual: true, Extract: html.Extract},
	{MediaType: "text/plain", Aliases: []string{"text/*", "application/json", "application/x-ndjson", "application/xml", "application/yaml", "application/toml"},
		Extensions: []string{".txt", ".text", ".log", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".rst", ".adoc", ".org", ".tex"}, Textual: true, Extract: text.Extract},
}

// Open detects the format of a document and opens it. A nil body means
// doc.Body.
func Open(ctx context.Context, doc leat.Document, body io.Reader) (extract.Content, error) {
	if body == nil {
		body = strings.NewReader(doc.Body)
	}
	var name string
	if doc.Ref != nil {
		name = doc.Ref.Name
	}
	return Formats.Open(ctx, doc.MediaType, name, body)
}

const (
	titleBytes  = 4 << 10 // of the text in which a heading gives the document its title
	titleTokens = 48      // a longer title is clipped
	minLimit    = 64
	slack       = 16      // tokens by which a sum of parts may fall short of the whole's count
	maxChunks   = 4 << 20 // of a document; about 4 GB of English
)

// Chunker cuts documents into chunks. It is safe for concurrent use.
type Chunker struct {
	tok         leat.Tokenizer
	target, max int
	limit       int
}

// New makes a chunker that measures with tok; nil means Estimate. Limit is the
// number of tokens that leat.Embeddable(title, text) may have for any chunk:
// what the model takes, less its special tokens and prefix.
func New(cfg Config, tok leat.Tokenizer, limit int) (*Chunker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if limit < minLimit {
		return nil, fmt.Errorf("chunker: a model that takes %d tokens is below the least of %d", limit, minLimit)
	}
	if tok == nil {
		tok = Estimate
	}
	d := cfg.withDefaults()
	room := limit - min(titleTokens, limit/4)
	if d.MaxTokens > room {
		if cfg.MaxTokens != 0 {
			return nil, &leat.FieldError{Field: "max_tokens",
				Msg:  fmt.Sprintf("%d does not fit the model, which takes %d with the title's %d", d.MaxTokens, limit, limit-room),
				Hint: fmt.Sprintf("give at most %d", room)}
		}
		d.MaxTokens = room
		d.TargetTokens = min(d.TargetTokens, room*defaultTarget/defaultMax)
	}
	return &Chunker{tok: tok, target: d.TargetTokens, max: d.MaxTokens, limit: limit}, nil
}

// Info is what was found out of a document.
type Info struct {
	// Title is the event's, else the one that the document states, else its
	// first heading of level 1 if that stands in the first 4 KiB of text, else
	// the name of the file without its extension. Past 48
	// tokens (a quarter of the model's, if fewer) it is clipped, so that title
	// and chunk fit the model together.
	Title     string
	MediaType string // that it was read as
	Chunks    int
	Bytes     int64 // of extracted text
}

// Chunk reads a document and gives its chunks to yield in order, with what is
// known of the document by then: Title and MediaType are final from the first
// chunk on, Chunks and Bytes when Chunk returns. A nil body means doc.Body. A
// document without text has no chunks, which is no error; with a title of its
// event's it has one, empty, which is found by the title.
//
// Every chunk's Text is the extracted text from Start to End, without white
// space around it, and all that is between chunks is white space. It holds up
// to 32 chunks' text, and about 40 bytes for every chunk it gave.
func (c *Chunker) Chunk(ctx context.Context, docID string, doc leat.Document, body io.Reader, yield func(Info, leat.Chunk) error) (Info, error) {
	content, err := Open(ctx, doc, body)
	if err != nil {
		return Info{}, err
	}
	r := run{
		c: c, id: docID, yield: yield,
		info: Info{Title: cmp.Or(strings.TrimSpace(doc.Title), content.Title), MediaType: content.MediaType},
		u:    units{tok: c.tok, largest: max(8, c.target/2)},
		seg:  segmenter{target: c.target, max: c.max},
		seen: map[uint64]int32{},
	}
	if doc.Ref != nil {
		base := path.Base(strings.ToValidUTF8(doc.Ref.Name, "\uFFFD"))
		r.stem = cmp.Or(strings.TrimSuffix(base, path.Ext(base)), base)
	}
	for b, err := range content.Blocks {
		if err != nil {
			return r.info, fmt.Errorf("read as %s: %w", content.MediaType, err)
		}
		if b.Level == 1 && b.Title != "" && r.info.Title == "" && r.info.Bytes < titleBytes {
			r.info.Title = b.Title
		}
		r.u.add(b)
		r.info.Bytes += int64(len(b.Text))
		if err := r.step(false); err != nil {
			return r.info, err
		}
	}
	r.u.flush(true)
	if err := r.step(true); err != nil {
		return r.info, err
	}
	r.name()
	if r.info.Chunks == 0 && strings.TrimSpace(doc.Title) != "" {
		// A row with a name and nothing else is found by its name.
		r.info.Chunks++
		if err := yield(r.info, leat.Chunk{ID: leat.ChunkID(docID, "", 0)}); err != nil {
			return r.info, err
		}
	}
	return r.info, ctx.Err()
}

// run is the chunking of one document.
type run struct {
	c     *Chunker
	id    string
	yield func(Info, leat.Chunk) error
	info  Info
	stem  string // of the file's name, the last choice for a title
	named bool   // the title is final
	title int    // its tokens
	u     units
	seg   segmenter
	// seen counts equal texts by a 64-bit hash. Two texts of a document with one
	// hash would number the second as a repetition, which is an id of its own too.
	seen map[uint64]int32
}

// step gives out the chunks that are certain.
func (r *run) step(final bool) error {
	if !final && r.info.Title == "" && r.info.Bytes < titleBytes {
		return nil
	}
	for _, x := range r.u.out {
		if x.forced {
			if err := r.emit(r.seg.agreed(true)); err != nil {
				return err
			}
		}
		r.seg.add(x)
		if err := r.emit(r.seg.agreed(false)); err != nil {
			return err
		}
	}
	r.u.out = r.u.out[:0]
	if final {
		return r.emit(r.seg.agreed(true))
	}
	keep := r.u.base + int64(r.u.pending)
	if len(r.seg.u) > 0 {
		keep = r.seg.u[0].start
	}
	r.u.forget(keep)
	return nil
}

// emit gives out the chunks that end at cuts.
func (r *run) emit(cuts []int) error {
	a := 0
	for _, z := range cuts {
		if err := r.chunk(r.seg.u[a:z]); err != nil {
			return err
		}
		a = z
	}
	r.seg.drop(a)
	return nil
}

// chunk gives out one chunk, or several where together the units measure more
// than one by one and pass the limit.
func (r *run) chunk(us []unit) error {
	r.name()
	first, last := us[0], us[len(us)-1]
	text := string(r.u.text[first.start-r.u.base : last.end-r.u.base])
	tokens := r.c.tok.Count(text)
	if len(us) > 1 && (tokens > r.c.max ||
		tokens+r.title+slack > r.c.limit && r.c.tok.Count(leat.Embeddable(r.info.Title, text)) > r.c.limit) {
		if err := r.chunk(us[:len(us)/2]); err != nil {
			return err
		}
		return r.chunk(us[len(us)/2:])
	}
	if r.info.Chunks == maxChunks {
		return leat.Hint(fmt.Errorf("more than %d chunks: %w", maxChunks, leat.ErrTooLarge), "split the document")
	}
	h := xxhash.Sum64String(text)
	k := leat.Chunk{
		ID:      leat.ChunkID(r.id, text, int(r.seen[h])),
		Ordinal: r.info.Chunks,
		Start:   first.start, End: last.end,
		Tokens: tokens, Page: first.page, Text: text,
		Heading: first.heading,
	}
	for _, x := range us { // the section of the text below the headings that it begins with
		if k.Heading = x.heading; !x.title {
			break
		}
	}
	r.seen[h]++
	r.info.Chunks++
	return r.yield(r.info, k)
}

// name makes the title final.
func (r *run) name() {
	if !r.named {
		r.named = true
		r.info.Title, r.title = r.c.clipTitle(cmp.Or(r.info.Title, r.stem))
	}
}

// clipTitle returns the title in one line, short enough, and its tokens.
func (c *Chunker) clipTitle(title string) (string, int) {
	title = strings.Join(strings.Fields(title[:min(len(title), 2*titleBytes)]), " ")
	title = strings.ToValidUTF8(title, "")
	n := c.tok.Count(title)
	for most := min(titleTokens, c.limit/4) - 1; n > most; n = c.tok.Count(title) { // 1 for the line end after it
		title = clip(title, len(title)*3/4)
		if i := strings.LastIndexByte(title, ' '); i > len(title)/2 {
			title = title[:i]
		}
	}
	return title, n
}
