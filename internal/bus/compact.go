package bus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	// A partition is compacted once it is larger than compactFrom and twice as
	// large as the last compaction left it.
	compactFrom   = 64 << 20
	compactGrowth = 2

	compactedMark = "compacted" // holds the size that the last compaction left
	swapNew       = ".new"      // a partition's directory being written
	swapOld       = ".old"      // one that its successor replaces

	// tombstoneLife is how long a delete is remembered by a compacted topic: a
	// group that is away for longer never hears of it.
	tombstoneLife = 365 * 24 * time.Hour
)

// topicConfigs are the settings of all topics, by the name of their directories.
func topicConfigs(data string) (map[string]map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(data, "topics.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f struct {
		Topics []struct {
			Name    string            `json:"name"`
			Configs map[string]string `json:"configs"`
		} `json:"topics"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("topics.json: %w", err)
	}
	configs := map[string]map[string]string{}
	for _, t := range f.Topics {
		configs[url.PathEscape(t.Name)] = t.Configs
	}
	return configs, nil
}

func isCompacted(config map[string]string) bool { return config["cleanup.policy"] == "compact" }

// due reports whether a partition has grown enough to be worth compacting.
func due(dir string) (bool, error) {
	bases, err := segments(dir)
	if err != nil {
		return false, err
	}
	var size int64
	for _, base := range bases {
		info, err := os.Stat(segmentPath(dir, base, ".dat"))
		if err != nil {
			return false, err
		}
		size += info.Size()
	}
	before := int64(0)
	if b, err := os.ReadFile(filepath.Join(dir, compactedMark)); err == nil {
		before, _ = strconv.ParseInt(string(b), 10, 64)
	}
	return size > compactFrom && size > compactGrowth*before, nil
}

// keyHash is 128 bits of a key: enough that no two keys of a topic share it.
type keyHash [2]uint64

// compact writes a partition anew with the latest record of every key alone
// and puts it in the old one's place. It reads the partition twice and holds
// 24 bytes a key (I8); a kill at any point leaves the old one or the new (I7).
func compact(dir string, log *slog.Logger) error {
	if yes, err := due(dir); !yes || err != nil {
		return err
	}
	begun := time.Now()
	bases, err := segments(dir)
	if err != nil {
		return err
	}
	seeds := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	hash := func(key []byte) keyHash { return keyHash{maphash.Bytes(seeds[0], key), maphash.Bytes(seeds[1], key)} }

	latest := map[keyHash]int64{}
	var before, end int64 // bytes, and the first offset of the last batch
	for _, base := range bases {
		size, _, err := readBatches(segmentPath(dir, base, ".dat"), func(raw []byte) error {
			b := batchView(raw)
			end = b.base()
			return b.records(func(r recordView) error {
				latest[hash(r.key)] = r.offset
				return nil
			})
		})
		if err != nil {
			return err
		}
		before += size
	}

	w := segmentWriter{dir: dir + swapNew}
	if err := errors.Join(os.RemoveAll(w.dir), os.Mkdir(w.dir, ownerPerm)); err != nil {
		return err
	}
	forget := time.Now().Add(-tombstoneLife).UnixMilli()
	for _, base := range bases {
		index, err := os.ReadFile(segmentPath(dir, base, ".idx"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		n := 0
		_, _, err = readBatches(segmentPath(dir, base, ".dat"), func(raw []byte) error {
			b := batchView(raw)
			entry := index[min(n*indexEntry, len(index)):min((n+1)*indexEntry, len(index))]
			n++
			if b.base() == end || b.control() { // the last one tells where the log ends
				return w.write(raw, entry)
			}
			kept, err := b.filter(func(r recordView) bool {
				return r.key == nil || latest[hash(r.key)] == r.offset && (!r.tombstone || r.time > forget)
			})
			if kept == nil || err != nil {
				return err
			}
			return w.write(kept, entry)
		})
		if err != nil {
			return errors.Join(err, w.close())
		}
	}
	mark := filepath.Join(w.dir, compactedMark)
	if err := errors.Join(w.close(), writeFile(mark, strconv.AppendInt(nil, w.total, 10)), syncDir(w.dir)); err != nil {
		return err
	}
	if err := os.Rename(dir, dir+swapOld); err != nil {
		return err
	}
	if err := finishSwaps(filepath.Dir(dir)); err != nil {
		return err
	}
	log.Info("compacted", "partition", filepath.Base(dir), "bytes_before", before, "bytes_after", w.total, "keys", len(latest), "took", time.Since(begun))
	return nil
}

// finishSwaps ends what compact was at when it was killed. An old directory
// without a successor in its place has one that is complete beside it.
func finishSwaps(root string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(filepath.Join(root, e.Name()), swapOld)
		if !ok {
			continue
		}
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			if err := os.Rename(name+swapNew, name); err != nil {
				return err
			}
		}
		if err := errors.Join(syncDir(root), os.RemoveAll(name+swapOld)); err != nil {
			return err
		}
	}
	for _, e := range entries { // what is left was not complete
		if strings.HasSuffix(e.Name(), swapNew) {
			if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// batchView reads an encoded record batch.
type batchView []byte

func (b batchView) base() int64     { return int64(binary.BigEndian.Uint64(b)) }
func (b batchView) attributes() int { return int(binary.BigEndian.Uint16(b[21:])) }
func (b batchView) control() bool   { return b.attributes()&0x20 != 0 }
func (b batchView) count() int      { return int(binary.BigEndian.Uint32(b[57:])) }
func (b batchView) first() int64    { return int64(binary.BigEndian.Uint64(b[27:])) } // ms

// recordView is a record of a batch. raw is all of it, its length included.
type recordView struct {
	raw       []byte
	key       []byte
	offset    int64
	time      int64 // ms
	tombstone bool
}

var errBatch = errors.New("a record batch is damaged")

// records gives fn the records of the batch.
func (b batchView) records(fn func(recordView) error) error {
	body := []byte(b[batchHeader:])
	if c := kafka.Compression(b.attributes() & 7); c != 0 {
		codec := c.Codec()
		if codec == nil {
			return fmt.Errorf("%w: compression %d", errBatch, c)
		}
		r := codec.NewReader(strings.NewReader(string(body)))
		var err error
		if body, err = io.ReadAll(r); err != nil {
			return errors.Join(err, r.Close())
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	for range b.count() {
		length, n := binary.Varint(body)
		if n <= 0 || length < 1 || length > int64(len(body)-n) {
			return errBatch
		}
		r := recordView{raw: body[:n+int(length)]}
		rest := r.raw[n+1:] // after the attributes
		number := func() (v int64) {
			v, n := binary.Varint(rest)
			rest = rest[max(n, 0):]
			return v
		}
		r.time = b.first() + number()
		r.offset = b.base() + number()
		if size := number(); size >= 0 {
			if size > int64(len(rest)) {
				return errBatch
			}
			r.key, rest = rest[:size:size], rest[size:]
		}
		r.tombstone = number() < 0
		if err := fn(r); err != nil {
			return err
		}
		body = body[len(r.raw):]
	}
	return nil
}

// filter returns the batch with the records that keep keeps, at their offsets
// and uncompressed where some go; nil where all do.
func (b batchView) filter(keep func(recordView) bool) ([]byte, error) {
	out := append([]byte(nil), b[:batchHeader]...)
	n, last := 0, int64(0)
	err := b.records(func(r recordView) error {
		if keep(r) {
			out = append(out, r.raw...)
			last = r.offset - b.base()
			n++
		}
		return nil
	})
	switch {
	case err != nil || n == 0:
		return nil, err
	case n == b.count():
		return b, nil
	}
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint16(out[21:], uint16(b.attributes()&^7))
	binary.BigEndian.PutUint32(out[23:], uint32(last))
	binary.BigEndian.PutUint32(out[57:], uint32(n))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], castagnoli))
	return out, nil
}

// segmentWriter writes batches and their index entries to segment files.
type segmentWriter struct {
	dir         string
	data, index *os.File
	size, total int64
}

func (w *segmentWriter) write(batch, entry []byte) error {
	if w.data == nil || w.size >= segmentBytes {
		if err := w.close(); err != nil {
			return err
		}
		base := batchView(batch).base()
		var errs [2]error
		w.data, errs[0] = os.OpenFile(segmentPath(w.dir, base, ".dat"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		w.index, errs[1] = os.OpenFile(segmentPath(w.dir, base, ".idx"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		w.size = 0
	}
	_, err := w.data.Write(batch)
	_, ierr := w.index.Write(append(entry[:len(entry):len(entry)], make([]byte, indexEntry-len(entry))...))
	w.size += int64(len(batch))
	w.total += int64(len(batch))
	return errors.Join(err, ierr)
}

// close makes what was written durable.
func (w *segmentWriter) close() error {
	if w.data == nil {
		return nil
	}
	err := errors.Join(w.data.Sync(), w.data.Close(), w.index.Sync(), w.index.Close())
	w.data, w.index = nil, nil
	return err
}
