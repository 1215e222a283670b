package leat

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"io"
	"iter"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Event is one change of one document: what the documents topic carries.
type Event struct {
	ID       string    // see [DocumentID]
	Version  uint64    // rises with every change of the document; decides everything (I2). At most 1<<63-1.
	Source   string    // kind and name of the source, such as "mysql:shop"
	Time     time.Time // when the change was made at the source
	Again    bool      // apply it even where this version is held: what is held may be damaged
	Document *Document // nil: the document was deleted
}

// Document is the content of a document at one version. Its text is either
// inline (Body) or fetched by the chunker (Ref).
type Document struct {
	Title     string         `json:"title,omitempty"`
	MediaType string         `json:"media_type,omitempty"` // of the body; "" lets the chunker detect it from name and content
	Body      string         `json:"body,omitempty"`
	Ref       *Ref           `json:"ref,omitempty"`
	Metadata  map[string]any `json:"metadata,omitempty"` // JSON values; copied to every hit
}

// Ref points at a body that is read from the source when it is needed.
type Ref struct {
	Name string `json:"name"`           // path, object key or row key, as the source's Open understands it
	Tag  string `json:"tag"`            // identifies the content (ETag, size and modification time, digest): Open fails with ErrChanged on another
	Size int64  `json:"size,omitempty"` // bytes
}

// DocumentID makes a document's id: kind:name/part/part…, name and parts
// percent-encoded, so "mysql:shop/store.products/42" or, a part a path segment,
// "folder:notes/guides/a%20b.md".
func DocumentID(kind, name string, parts ...string) string {
	var b strings.Builder
	b.WriteString(kind)
	b.WriteByte(':')
	b.WriteString(url.PathEscape(name))
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// Chunk is a piece of a document's extracted text.
type Chunk struct {
	ID      string    `json:"id"` // see [ChunkID]
	Ordinal int       `json:"ordinal"`
	Start   int64     `json:"start"` // byte offsets into the extracted UTF-8 text;
	End     int64     `json:"end"`   // that slice is Text
	Tokens  int       `json:"tokens"`
	Heading []string  `json:"heading,omitempty"` // headings above it, outermost first
	Page    int       `json:"page,omitempty"`    // from 1; 0 where the format has none
	Text    string    `json:"text,omitempty"`
	Vector  []float32 `json:"-"` // unit length; nil before the embedder
}

// ChunkID is a hash of document id, text and the number of earlier chunks of
// the document with the same text: unchanged text keeps its id wherever an
// edit moves it. 22 characters of URL-safe base64 (132 bits of SHA-256).
func ChunkID(document, text string, occurrence int) string {
	h := sha256.New()
	io.WriteString(h, document)
	h.Write([]byte{0})
	io.WriteString(h, strconv.Itoa(occurrence))
	h.Write([]byte{0})
	io.WriteString(h, text)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))[:22]
}

// Revision is a document at one version as chunks: what the chunks and vectors
// topics carry and a [Sink] applies. A large document comes as several parts,
// in order, the last one marked; after a crash its parts may come again, from
// the first or from where they stopped, and a newer version may begin before
// the last part of an older one came.
type Revision struct {
	Document  string         `json:"document"`
	Version   uint64         `json:"version"`
	Source    string         `json:"source,omitempty"`
	Time      time.Time      `json:"time,omitzero"`
	Again     bool           `json:"again,omitempty"`   // see Event
	Deleted   bool           `json:"deleted,omitempty"` // no chunks, one part, marked last
	Title     string         `json:"title,omitempty"`
	MediaType string         `json:"media_type,omitempty"`
	Tag       string         `json:"tag,omitempty"` // identifies the content: of Event.Document.Ref, or a digest of an inline document
	Metadata  map[string]any `json:"metadata,omitempty"`
	Part      int            `json:"part,omitempty"` // from 0
	Last      bool           `json:"last,omitempty"`
	Chunks    []Chunk        `json:"chunks,omitempty"`
}

// Embeddable is the text that is embedded for a chunk of a document: the
// document's title stands before the chunk unless the chunk begins with it.
func Embeddable(title, text string) string {
	title = strings.TrimSpace(title)
	switch {
	case title == "" || strings.HasPrefix(strings.TrimLeft(text, "# \t\r\n"), title):
		return text
	case text == "":
		return title
	}
	return title + "\n" + text
}

// Source turns changes into events. Implementations pass sources/sourcetest.
type Source interface {
	// Run gives changes after s.Position to s.Emit, in order, until ctx ends
	// (it then returns nil or ctx's error). With s.Once it returns nil when
	// every change made before the call has been given. Any other return is an
	// error; the caller runs it again, after a pause, from the last durable
	// position.
	Run(ctx context.Context, s Session) error
	// List gives every document that the source holds now, in any order and in
	// constant memory, as events without a version. It may run beside Run, in
	// another process.
	List(ctx context.Context) iter.Seq2[Event, error]
	// Look reads documents of the source anew, beside Run or without it, and
	// returns an event for each of l.IDs, in order: what is there now, a delete
	// where nothing is. It may have to be emitted, see Look.
	Look(ctx context.Context, l Look) ([]Event, error)
	Opener
	io.Closer
}

// Look asks a source for documents whose events were lost, or never came.
type Look struct {
	Position json.RawMessage // the last durable Batch.Position; nil: none
	Epoch    uint64          // of the newest session
	IDs      []string
	// Above are versions, by place in IDs. The version of an event is higher, not
	// lower than that of any change that it reflects, and lower than that of any
	// change that it does not (I2).
	Above []uint64
}

// Opener opens the body that a Ref of one of the source's documents points at.
type Opener interface {
	// Open fails with ErrNotFound or ErrChanged where the content is no longer
	// the one ref speaks of; a reader fails with ErrChanged where that happens
	// while it is read.
	Open(ctx context.Context, ref Ref) (io.ReadCloser, error)
}

// Session is one run of a source by the process that leads it.
type Session struct {
	Position json.RawMessage // the last durable Batch.Position; nil at the very first run
	Epoch    uint64          // counts the sessions of this source over all processes, from 1
	// Again asks for every document, those too that the index holds as they are.
	// It is asked again of each session until a position was durable, so none is
	// given before all have been read, or it tells which have not.
	Again bool
	Once  bool
	// Emit hands over events and the position to resume at once they are
	// durable. It blocks for back-pressure, not until they are; an error is
	// final and Run returns it. The caller saves positions in order (I1).
	Emit func(ctx context.Context, b Batch) error
	// Known lists what the index holds of documents with an id prefix, in
	// ascending byte order of id, deleted ones left out. It first waits until
	// everything emitted before the call has reached the index.
	Known func(ctx context.Context, prefix string) iter.Seq2[DocumentState, error]
	// Report tells status and progress bars how far the source is. Cheap.
	Report func(Progress)
	Log    *slog.Logger
}

// Batch is a run of events in the order of their changes.
type Batch struct {
	Events   []Event
	Position json.RawMessage // nil: not a place to resume at (inside a transaction)
}

// Progress is where a source is.
type Progress struct {
	Phase    string    `json:"phase"`              // "snapshot", "streaming", "scanning", "watching"
	Position string    `json:"position,omitempty"` // for people
	Time     time.Time `json:"time,omitzero"`      // of the newest change read
	Done     int64     `json:"done,omitempty"`     // of Total, in the phase's own unit, for a progress bar
	Total    int64     `json:"total,omitempty"`    // 0: unknown
	Behind   int64     `json:"behind,omitempty"`   // bytes of change log not yet read; 0 when caught up
}

// Checker is implemented by components that `leat validate --connect` can try
// against their server: reachability, credentials, privileges, settings.
type Checker interface {
	// Check returns every problem found, joined, each with a hint.
	Check(ctx context.Context) error
}

// Tokenizer measures text in a model's tokens.
type Tokenizer interface {
	// Count is the number of tokens of text, without the special tokens that
	// begin and end an input. Safe for concurrent use.
	Count(text string) int
}

// Kind says what a text is embedded as.
type Kind string

// Models that tell the two apart embed a question near the passages that answer it.
const (
	Passage Kind = "passage"
	Query   Kind = "query"
)

// Model identifies what makes the vectors of an index.
type Model struct {
	Name      string `json:"name"`      // vectors of equal names are comparable
	Dimension int    `json:"dimension"` // of its vectors
	MaxTokens int    `json:"max_tokens"`
}

// Embedder turns texts into vectors of unit length.
type Embedder interface {
	// Embed returns one vector of Model().Dimension a text, in order. Safe for
	// concurrent use. Errors marked Permanent speak of the texts themselves.
	Embed(ctx context.Context, kind Kind, texts []string) ([][]float32, error)
	Model() Model
	io.Closer
}

// DocumentState is what a store knows of a document.
type DocumentState struct {
	ID      string    `json:"document"`
	Version uint64    `json:"version"`
	Deleted bool      `json:"deleted,omitempty"` // a tombstone: older versions are refused
	Tag     string    `json:"tag,omitempty"`
	Title   string    `json:"title,omitempty"`
	Chunks  int       `json:"chunks"`
	Applied time.Time `json:"applied,omitzero"`
}

// Holding is what a store really holds of a document.
type Holding struct {
	DocumentState
	Digest ChunkDigest // of the searchable chunks
	Damage string      // what is wrong with them in this store, such as "chunk 3 is missing"; "" if nothing
	Stray  string      // the store's own name of something that belongs to no document; nothing else is set then
}

// ChunkDigest is equal in stores that hold the same chunks of a document. It
// begins at 0 (FNV-1a, 64 bits, over ids, ordinals and places).
type ChunkDigest uint64

// Add goes on with the chunk of the next ordinal.
func (d ChunkDigest) Add(c *Chunk) ChunkDigest {
	h := fnv.New64a()
	var b [32]byte
	binary.LittleEndian.PutUint64(b[:], uint64(d))
	binary.LittleEndian.PutUint64(b[8:], uint64(c.Ordinal))
	binary.LittleEndian.PutUint64(b[16:], uint64(c.Start))
	binary.LittleEndian.PutUint64(b[24:], uint64(c.End))
	_, _ = h.Write(b[:]) // a hash does not fail
	_, _ = io.WriteString(h, c.ID)
	return ChunkDigest(h.Sum64())
}

// Outcome of applying a revision.
type Outcome int

const (
	Applied    Outcome = iota // the store holds it now
	Superseded                // the store holds a newer version already
)

// Sink keeps one store equal to the flow. Implementations pass sinks/sinktest.
type Sink interface {
	// Apply makes every revision durable, in order, and returns an outcome for
	// each. It is idempotent; an older version than the one held is Superseded
	// (I2), the one held is not written again unless it is marked Again; a
	// revision's chunks become searchable, and those of older versions cease to
	// be, together with its last part (I4). Searches and Hits may see that a
	// little later, well under a second; the other methods see it at once. On an
	// error all of the batch is applied again.
	Apply(ctx context.Context, revisions []Revision) ([]Outcome, error)
	// Document returns the state of one document; ErrNotFound if unknown.
	Document(ctx context.Context, id string) (DocumentState, error)
	// Documents lists the states of documents whose id has the prefix, in
	// ascending byte order of id, tombstones left out, in constant memory.
	Documents(ctx context.Context, prefix string) iter.Seq2[DocumentState, error]
	// Inventory lists the same with what their chunks are found to be, each read
	// and compared with its checksum. What belongs to no document, and to no
	// version under way, comes as Stray, wherever; only with the prefix "".
	Inventory(ctx context.Context, prefix string) iter.Seq2[Holding, error]
	// Discard removes what Inventory called stray.
	Discard(ctx context.Context, strays []string) error
	// Chunks lists the searchable chunks of one document by ordinal.
	Chunks(ctx context.Context, id string) ([]Chunk, error)
	// Stats counts searchable documents and chunks.
	Stats(ctx context.Context) (Stats, error)
	io.Closer
}

// Generations are the indexes that a store holds of a pipeline, one a
// generation, and its alias, which makes one of them live.
type Generations interface {
	// Live is the number of the one that the alias leads to; 0 where there is none.
	Live(ctx context.Context) (int, error)
	// Switch makes the alias lead to generation n, which is there. It returns
	// once reads through the alias prove it, and may be repeated.
	Switch(ctx context.Context, n int) error
	// Drop removes generation n, of which nothing may be there any more. It
	// refuses the live one.
	Drop(ctx context.Context, n int) error
	io.Closer
}

// Stats of a store.
type Stats struct {
	Documents int64 `json:"documents"`
	Chunks    int64 `json:"chunks"`
}

// Match is a chunk that a search found.
type Match struct {
	Document string
	Version  uint64
	Chunk    string // ChunkID
	Start    int64  // of the chunk, to place it where another store holds a newer version
	Score    float64
}

// TextIndex is a sink that finds chunks by their words (scores: BM25, higher is better).
type TextIndex interface {
	Sink
	SearchText(ctx context.Context, query string, limit int) ([]Match, error)
	// Hits returns what a result shows of matches: for each, the chunk with
	// its id or, where the document has changed since, the one that now stands
	// at its Start. Matches of documents that are gone come back as nil.
	Hits(ctx context.Context, matches []Match) ([]*Hit, error)
}

// VectorIndex is a sink that finds chunks by their vectors (scores: cosine).
type VectorIndex interface {
	Sink
	SearchVector(ctx context.Context, vector []float32, limit int) ([]Match, error)
}

// Hit is one search result.
type Hit struct {
	Document string         `json:"document"`
	Version  uint64         `json:"version"`
	Chunk    string         `json:"chunk"`
	Score    float64        `json:"score"`
	Title    string         `json:"title"`
	Text     string         `json:"text"`
	Location Location       `json:"location"`
	Metadata map[string]any `json:"metadata"`
}

// Location says where in its document a chunk stands.
type Location struct {
	Page    int      `json:"page"` // from 1; 0 where the format has none
	Heading []string `json:"heading"`
	Start   int64    `json:"start"` // byte offsets into the extracted UTF-8 text
	End     int64    `json:"end"`
}

// Secret is a string that never shows itself in logs, errors or output.
type Secret string

const masked = "***"

func (Secret) String() string               { return masked }
func (Secret) GoString() string             { return masked }
func (Secret) LogValue() slog.Value         { return slog.StringValue(masked) }
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }
