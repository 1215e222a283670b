package embedder

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"leat"
)

// cache keeps the vectors of passages in a SQLite file by (model, prefix,
// text): unchanged text is not embedded again, whatever happens to the process
// between (I7). It never fails its caller: what cannot be read is embedded,
// what cannot be written is embedded again another time.
type cache struct {
	provider
	path     string
	maxBytes int64
	log      *slog.Logger
	now      func() time.Time

	writing sync.Mutex // one transaction at a time; other processes have SQLite's lock

	mu     sync.Mutex // guards what follows
	store  *store
	closed bool // or it cannot be opened
	// What waits for the transaction under way to end: the next takes all of it.
	unsaved unsaved
}

// unsaved are vectors that are yet to be saved.
type unsaved struct {
	keys    []key
	vectors [][]float32
}

// saveBatch texts are embedded before their vectors are saved: so many at most
// are embedded again after a SIGKILL.
const saveBatch = 128

func newCache(model provider, path string, maxBytes int64, log *slog.Logger) *cache {
	return &cache{provider: model, path: path, maxBytes: maxBytes, log: log, now: time.Now}
}

// key identifies an embedded text.
type key [sha256.Size]byte

// id is where the row of a key stands. Two keys with one id replace each other.
func (k key) id() int64 { return int64(binary.LittleEndian.Uint64(k[:])) }

func (c *cache) key(prefix, text string) (k key) {
	m := c.Model()
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00", m.Name, m.Dimension, prefix)
	_, _ = io.WriteString(h, text) // a hash does not fail
	h.Sum(k[:0])
	return k
}

// Embed implements leat.Embedder. With a Permanent error of the provider come
// the vectors of the texts that it does not concern, as from the provider.
// Equal texts of one call are embedded once and share their vector. Queries
// are not kept: few are asked twice.
func (c *cache) Embed(ctx context.Context, kind leat.Kind, texts []string) ([][]float32, error) {
	if kind != leat.Passage || len(texts) == 0 {
		return c.provider.Embed(ctx, kind, texts)
	}
	prefix := c.Prefix(kind)
	at := make(map[key][]int, len(texts))
	var keys []key
	for i, text := range texts {
		k := c.key(prefix, text)
		if at[k] == nil {
			keys = append(keys, k)
		}
		at[k] = append(at[k], i)
	}
	found, err := c.lookup(ctx, keys)
	if err != nil {
		return nil, err
	}
	out := make([][]float32, len(texts))
	put := func(k key, v []float32) {
		for _, i := range at[k] {
			out[i] = v
		}
	}
	var missing []key
	for _, k := range keys {
		if v := found[k]; v != nil {
			put(k, v)
		} else {
			missing = append(missing, k)
		}
	}
	var permanent error
	for len(missing) > 0 {
		n := min(saveBatch, len(missing))
		batch := make([]string, n)
		for j, k := range missing[:n] {
			batch[j] = texts[at[k][0]]
		}
		vectors, err := c.provider.Embed(ctx, kind, batch)
		if err != nil && (!leat.IsPermanent(err) || len(vectors) != n) {
			return nil, err
		}
		permanent = errors.Join(permanent, err)
		for j, k := range missing[:n] {
			put(k, vectors[j])
		}
		c.save(ctx, missing[:n], vectors)
		missing = missing[n:]
	}
	return out, permanent
}

// Close implements leat.Embedder.
func (c *cache) Close() error {
	err := c.provider.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.store != nil {
		err = errors.Join(err, c.store.db.Close())
		c.store = nil
	}
	return err
}

func (c *cache) today() int64 { return c.now().Unix() / 86400 }

// lookup returns the vectors that are kept. Its only error is ctx's.
func (c *cache) lookup(ctx context.Context, keys []key) (map[key][]float32, error) {
	s := c.open()
	if s == nil {
		return nil, nil
	}
	found, stale, err := s.lookup(ctx, keys, c.Model().Dimension, c.today())
	if err == nil && len(stale) > 0 {
		c.writing.Lock()
		err = s.touch(ctx, stale, c.today())
		c.writing.Unlock()
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c.trouble(s, err)
	return found, nil
}

// save returns once the vectors are kept; nil ones are of refused texts. What is
// embedded is kept even if nobody waits for it any more.
func (c *cache) save(ctx context.Context, keys []key, vectors [][]float32) {
	s := c.open()
	if s == nil {
		return
	}
	c.mu.Lock()
	c.unsaved.keys, c.unsaved.vectors = append(c.unsaved.keys, keys...), append(c.unsaved.vectors, vectors...)
	c.mu.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	due := c.unsaved
	c.unsaved = unsaved{}
	c.mu.Unlock()
	if len(due.keys) == 0 { // another call has saved these
		return
	}
	c.trouble(s, s.save(context.WithoutCancel(ctx), due.keys, due.vectors, c.today(), c.maxBytes))
}

// open returns the store, or nil: go without it.
func (c *cache) open() *store {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store != nil || c.closed {
		return c.store
	}
	s, err := openStore(c.path)
	if damaged(err) {
		c.remove(err)
		s, err = openStore(c.path)
	}
	if err != nil {
		c.closed = true
		c.log.Warn("the cache of vectors cannot be opened; unchanged texts are embedded anew", "path", c.path, "error", err)
		return nil
	}
	c.store = s
	return s
}

// trouble tells what went wrong with the store, and begins a damaged one anew.
func (c *cache) trouble(s *store, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil || c.store != s: // it was closed meanwhile
	case damaged(err):
		c.store = nil
		c.remove(errors.Join(err, s.db.Close()))
	default:
		c.log.Warn("the cache of vectors fails; these texts will be embedded anew", "path", c.path, "error", err)
	}
}

func (c *cache) remove(why error) {
	c.log.Warn("the cache of vectors is damaged and begins anew", "path", c.path, "error", why)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(c.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("the damaged cache of vectors cannot be removed", "error", err)
		}
	}
}
