package bus

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kfake keeps a partition as segment files of record batches as Kafka sends
// them (FIRST-OFFSET.dat), with 15 bytes a batch beside them (FIRST-OFFSET.idx),
// and a snapshot.json that it writes when it is closed. This file and
// compact.go read and write them while no broker runs: after a kill kfake would
// load every batch of a partition into memory at once, where with a snapshot it
// loads segment by segment, and its own compaction is not safe against a kill.
// The version of kfake is pinned; a snapshot that it does not know it ignores.

const (
	segmentBytes = 8 << 20
	indexEntry   = 15
	kfakeFormat  = 1 // of snapshot.json and .idx
)

// snapshot is kfake's snapshot.json.
type snapshot struct {
	Version          int               `json:"version"`
	HighWatermark    int64             `json:"high_watermark"`
	LastStableOffset int64             `json:"last_stable_offset"`
	LogStartOffset   int64             `json:"log_start_offset"`
	Epoch            int32             `json:"epoch"`
	CreatedAt        time.Time         `json:"created_at"`
	AbortedTxns      json.RawMessage   `json:"aborted_txns,omitempty"`
	Segments         []snapshotSegment `json:"segments"`
}

type snapshotSegment struct {
	Base int64 `json:"base_offset"`
	Size int64 `json:"size"`
}

// prepare makes the data directory quick and cheap to load: it ends what a kill
// interrupted, compacts what has grown, cuts off torn ends and writes the
// snapshots that a kill left stale.
func prepare(data string, log *slog.Logger) error {
	root := filepath.Join(data, "partitions")
	if err := finishSwaps(root); err != nil {
		return err
	}
	return eachPartition(data, func(dir string, config map[string]string) error {
		whole, err := trim(dir)
		if err != nil || !whole { // damage before the end is for kfake to judge
			return err
		}
		if isCompacted(config) {
			if err := compact(dir, log); err != nil {
				return fmt.Errorf("compacting %s: %w", dir, err)
			}
		}
		return writeSnapshot(dir, isCompacted(config))
	})
}

// eachPartition gives fn the directory of every partition and the settings of its topic.
func eachPartition(data string, fn func(dir string, config map[string]string) error) error {
	configs, err := topicConfigs(data)
	if err != nil {
		return err
	}
	root := filepath.Join(data, "partitions")
	dirs, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range dirs {
		topic := d.Name()[:max(strings.LastIndexByte(d.Name(), '-'), 0)]
		if config, ok := configs[topic]; ok {
			if err := fn(filepath.Join(root, d.Name()), config); err != nil {
				return err
			}
		}
	}
	return nil
}

// segments lists the first offsets of a partition's segments in order.
func segments(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var bases []int64
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			if base, err := strconv.ParseInt(name, 10, 64); err == nil {
				bases = append(bases, base)
			}
		}
	}
	slices.Sort(bases)
	return bases, nil
}

func segmentPath(dir string, base int64, ext string) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+ext)
}

// readBatches gives fn every whole batch of a segment file and returns how many
// bytes they take and how many there are. What fn gets is valid until it returns.
func readBatches(path string, fn func(raw []byte) error) (size int64, n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	var buf []byte
	for {
		head, err := r.Peek(12)
		if errors.Is(err, io.EOF) {
			return size, n, nil
		}
		if err != nil {
			return size, n, err
		}
		length := int64(binary.BigEndian.Uint32(head[8:])) + 12
		if length < batchHeader || length > math.MaxInt32 {
			return size, n, nil
		}
		buf = slices.Grow(buf[:0], int(length))[:length]
		if _, err := io.ReadFull(r, buf); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return size, n, err
		}
		if crc32.Checksum(buf[21:], castagnoli) != binary.BigEndian.Uint32(buf[17:]) {
			return size, n, nil
		}
		if fn != nil {
			if err := fn(buf); err != nil {
				return size, n, err
			}
		}
		size += length
		n++
	}
}

// trim cuts a torn batch, which nobody was acknowledged, off the end of a
// partition and reports whether all the rest is whole.
func trim(dir string) (bool, error) {
	bases, err := segments(dir)
	if err != nil || len(bases) == 0 {
		return true, err
	}
	last := bases[len(bases)-1]
	path := segmentPath(dir, last, ".dat")
	size, n, err := readBatches(path, nil)
	if err != nil {
		return false, err
	}
	if n == 0 && len(bases) > 1 {
		return false, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if info.Size() > size {
		if err := os.Truncate(path, size); err != nil {
			return false, err
		}
	}
	index := segmentPath(dir, last, ".idx")
	if info, err := os.Stat(index); err == nil && info.Size() > int64(n)*indexEntry {
		return true, os.Truncate(index, int64(n)*indexEntry)
	}
	return true, nil
}

// writeSnapshot writes snapshot.json unless the one there fits. kfake lowers
// the offsets to what it finds; a compacted log still begins where it began.
func writeSnapshot(dir string, compacted bool) error {
	bases, err := segments(dir)
	if err != nil || len(bases) == 0 {
		return err
	}
	path := filepath.Join(dir, "snapshot.json")
	s := snapshot{CreatedAt: time.Now().UTC()}
	if b, err := os.ReadFile(path); err == nil {
		if json.Unmarshal(b, &s) == nil && s.Version > kfakeFormat {
			return nil
		}
	}
	old := s.Segments
	s.Version, s.HighWatermark, s.LastStableOffset, s.Segments = kfakeFormat, math.MaxInt64, math.MaxInt64, nil
	if !compacted {
		s.LogStartOffset = max(s.LogStartOffset, bases[0])
	}
	for _, base := range bases {
		info, err := os.Stat(segmentPath(dir, base, ".dat"))
		if err != nil {
			return err
		}
		s.Segments = append(s.Segments, snapshotSegment{base, info.Size()})
	}
	if slices.Equal(old, s.Segments) {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(path, b)
}

// writeFile replaces a file in one step.
func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
