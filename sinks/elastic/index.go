// Package elastic keeps the text of documents in Elasticsearch 8: a
// [leat.TextIndex]. Several processes may write the same index.
//
// See docs/adr/004-elasticsearch.md for the choices made here.
package elastic

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"leat"
)

// Index is the text of one generation of a pipeline. Safe for concurrent use.
type Index struct {
	*client
	name     string // the pipeline's
	target   string // the index's
	writable bool
	analysis analysis
	// Searches of one Index go to the same copies of the shards, so that a
	// later one never sees less than an earlier one.
	session string
	log     *slog.Logger
	// Until when, in ns since 1970, chunks of the documents that come may have been
	// left behind: by a process that ended before this one began, or by a batch
	// that failed.
	leftUntil atomic.Int64
	written   written
	shown     atomic.Int64 // when a batch was last shown at once, in ns
}

var (
	_ leat.TextIndex = (*Index)(nil)
	_ leat.Checker   = (*Index)(nil)
)

// Open opens the index NAME-gGENERATION for writing. It creates it where it is
// not there, and leaves the alias NAME to [Generations].
func Open(ctx context.Context, cfg Config, name string, generation int, log *slog.Logger) (*Index, error) {
	x, err := newIndex(cfg, name, physical(name, generation), log)
	if err != nil {
		return nil, err
	}
	x.writable = true
	x.suspect()
	if err = x.create(ctx, cfg); err != nil {
		x.close()
		return nil, fmt.Errorf("elasticsearch index %s: %w", x.target, err)
	}
	return x, nil
}

// OpenReader opens the index NAME-gGENERATION for reading. It fails with
// fs.ErrNotExist where it is not there.
func OpenReader(ctx context.Context, cfg Config, name string, generation int, log *slog.Logger) (*Index, error) {
	x, err := newIndex(cfg, name, physical(name, generation), log)
	if err != nil {
		return nil, err
	}
	m, err := x.inspect(ctx, x.target)
	x.analysis = m.Analysis
	if err != nil {
		x.close()
		if errors.Is(err, fs.ErrNotExist) {
			err = leat.Hint(err, "nothing has been indexed here yet: start `leat run` first")
		}
		return nil, fmt.Errorf("elasticsearch: %w", err)
	}
	return x, nil
}

func newIndex(cfg Config, name, target string, log *slog.Logger) (*Index, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Index{client: c, name: name, target: target, session: rand.Text(), log: log}, nil
}

// Close implements [leat.Sink].
func (x *Index) Close() error {
	x.close()
	return nil
}

// suspicion is how long what an ended process had under way may take to come again.
const suspicion = time.Minute

func (x *Index) suspect() { x.leftUntil.Store(time.Now().Add(suspicion).UnixNano()) }

func (x *Index) suspected() bool { return time.Now().UnixNano() < x.leftUntil.Load() }

// show reports whether searches are to see the batch that is written now at once.
func (x *Index) show() bool {
	last, now := x.shown.Load(), time.Now().UnixNano()
	return now-last >= int64(showEvery) && x.shown.CompareAndSwap(last, now)
}

// Refresh makes all that is durable visible to searches at once.
func (x *Index) Refresh(ctx context.Context) error {
	return x.call(ctx, http.MethodPost, path(x.target, "_refresh"), nil, nil)
}

// hash names a document in ids and as routing: ids of documents may be longer
// than Elasticsearch allows. 22 characters of URL-safe base64.
func hash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:hashLength]
}

const hashLength = 22

func chunkID(hash string, version uint64, ordinal int) string {
	return fmt.Sprintf("%s.%d.%d", hash, version, ordinal)
}

func markID(hash string, version uint64) string { return fmt.Sprintf("%s.%d", hash, version) }

// parseID reads a chunk's or a mark's id; the ordinal of a mark is -1. It is not
// ok if id is something else.
func parseID(id string) (hash string, version uint64, ordinal int, ok bool) {
	parts := strings.Split(id, ".")
	if len(parts) < 2 || len(parts) > 3 || len(parts[0]) != hashLength {
		return "", 0, 0, false
	}
	version, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return "", 0, 0, false
	}
	if len(parts) == 2 {
		return parts[0], version, -1, markID(parts[0], version) == id
	}
	ordinal, err = strconv.Atoi(parts[2])
	return parts[0], version, ordinal, err == nil && ordinal >= 0 && chunkID(parts[0], version, ordinal) == id
}

// encodeID makes a document's id, which may be any bytes, a string that JSON
// can carry and that Elasticsearch sorts as the bytes: every byte past ASCII
// becomes the character of its number.
func encodeID(id string) string {
	plain := true
	for i := range len(id) {
		plain = plain && id[i] < 0x80
	}
	if plain {
		return id
	}
	runes := make([]rune, len(id))
	for i := range len(id) {
		runes[i] = rune(id[i])
	}
	return string(runes)
}

func decodeID(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// maxID is the longest value that Elasticsearch sorts by, in bytes.
const maxID = 32766
