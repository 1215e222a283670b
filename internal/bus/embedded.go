package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sys/unix"

	"leat"
)

const (
	lockFile  = "lock"        // flock'ed while a broker runs; holds who does
	addrFile  = "broker.json" // where the broker listens, or did last
	guestFile = "guests"      // flock'ed, shared, by other processes that use the broker
	dataDir   = "data"        // kfake's own
	ownerPerm = 0o700
)

// holder is what the lock file says of the process that holds it.
type holder struct {
	PID     int      `json:"pid"`
	Command []string `json:"command"`
}

// discovery is what broker.json says.
type discovery struct {
	PID  int    `json:"pid"` // of the process that wrote it; 0: the broker is ending
	Addr string `json:"addr"`
}

// Embedded is a Kafka broker inside this process.
type Embedded struct {
	dir     string
	lock    *os.File
	addr    string
	stop    chan struct{}
	wg      sync.WaitGroup
	once    sync.Once
	mu      sync.Mutex // of cluster
	cluster *kfake.Cluster
}

// StartEmbedded starts a broker that keeps its data in dir, or fails with
// leat.ErrInUse and a hint that names the process which holds dir. It listens
// on loopback only, on the port it had before where that is free, so that
// processes connected to a broker that was killed find the next one.
// Everything acknowledged is on disk and survives SIGKILL (I7).
func StartEmbedded(ctx context.Context, dir string, log *slog.Logger) (*Embedded, error) {
	if err := os.MkdirAll(dir, ownerPerm); err != nil {
		return nil, fmt.Errorf("bus: embedded broker: %w", err)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	e := &Embedded{dir: dir, lock: lock, stop: make(chan struct{})}
	if err = ctx.Err(); err == nil {
		err = e.start(log)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	e.wg.Go(func() { e.keep(log) })
	return e, nil
}

func (e *Embedded) data() string { return filepath.Join(e.dir, dataDir) }

func (e *Embedded) start(log *slog.Logger) error {
	port := 0
	if d, err := readDiscovery(e.dir); err == nil {
		if _, p, err := net.SplitHostPort(d.Addr); err == nil {
			port, _ = strconv.Atoi(p)
		}
	}
	listen := func(network, addr string) (net.Listener, error) {
		ln, err := net.Listen(network, addr) // kfake asks for 127.0.0.1
		if err != nil {
			host, _, _ := net.SplitHostPort(addr)
			ln, err = net.Listen(network, net.JoinHostPort(host, "0")) // someone else has the port now
		}
		return ln, err
	}
	data := e.data()
	err := os.Remove(filepath.Join(data, "broker_configs.json")) // what stands below counts, not what once did
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = prepare(data, log)
	}
	if err != nil {
		return leat.Hint(fmt.Errorf("bus: embedded broker: %w", err), damaged, data)
	}
	// Loading touches every byte of the data, a segment of every partition at a
	// time: neither the garbage nor its pages are to stay (I8).
	defer debug.FreeOSMemory()
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	cluster, err := kfake.NewCluster(
		kfake.Ports(port), // one broker
		kfake.ListenFn(listen),
		kfake.ClusterID("leat"),
		kfake.DataDir(data),
		kfake.SyncWrites(),
		kfake.WithLogger(brokerLog{log}),
		kfake.BrokerConfigs(map[string]string{
			// kfake applies these to every topic that does not set its own, even
			// to compacted ones, and forgets the offsets of groups that are away.
			"log.retention.ms":          "-1",
			"log.retention.bytes":       "-1",
			"offsets.retention.minutes": strconv.Itoa(10 * 365 * 24 * 60),
			// Its own cleaner deletes a partition's files before it writes the
			// compacted ones: a kill between the two loses the partition.
			"log.cleaner.backoff.ms": strconv.FormatInt((10 * 365 * 24 * time.Hour).Milliseconds(), 10),
			"log.segment.bytes":      strconv.Itoa(segmentBytes),
			"message.max.bytes":      strconv.Itoa(DefaultMaxMessageBytes),
		}),
	)
	if err != nil {
		return leat.Hint(fmt.Errorf("bus: embedded broker in %s: %w", e.dir, err), damaged, data)
	}
	e.cluster = cluster
	e.addr = cluster.ListenAddrs()[0]
	if err := writeDiscovery(e.dir, discovery{PID: os.Getpid(), Addr: e.addr}); err != nil {
		cluster.Close()
		e.cluster = nil
		return fmt.Errorf("bus: embedded broker: %w", err)
	}
	return nil
}

const (
	keepEvery = time.Minute
	damaged   = "its files may be damaged; move %s away to begin anew: the sources are then read again"
)

// keep looks after the data while the broker runs.
func (e *Embedded) keep(log *slog.Logger) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		if err := e.tidy(log); err != nil {
			log.Error("the embedded broker's data cannot be looked after", "error", err, "hint", leat.HintOf(err))
		}
	}
}

// tidy drops what is past its topic's retention and compacts what is due. A
// partition that has been idle for as long as its retention keeps all topics'
// expired records until it is written to again or deleted: see wouldEmpty.
func (e *Embedded) tidy(log *slog.Logger) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cluster == nil { // it did not start again
		return e.start(log)
	}
	compaction, expiry := false, true
	err := eachPartition(e.data(), func(dir string, config map[string]string) error {
		if isCompacted(config) {
			yes, err := due(dir)
			compaction = compaction || yes
			return err
		}
		emptied, err := wouldEmpty(dir, config)
		expiry = expiry && !emptied
		return err
	})
	if err != nil {
		return err
	}
	if expiry {
		e.cluster.ApplyRetention()
	}
	if !compaction {
		return nil
	}
	// A compaction has the files to itself; clients see a broker that restarts.
	e.cluster.Close()
	e.cluster = nil
	return e.start(log)
}

// wouldEmpty reports whether retention would drop all that a partition holds.
// kfake would then forget after a kill how many records there had been and
// count from 0 again, where groups have long been further.
func wouldEmpty(dir string, config map[string]string) (bool, error) {
	ms, err := strconv.ParseInt(config["retention.ms"], 10, 64)
	if err != nil || ms < 0 {
		return false, nil
	}
	bases, err := segments(dir)
	if err != nil || len(bases) == 0 {
		return false, err
	}
	info, err := os.Stat(segmentPath(dir, bases[len(bases)-1], ".dat"))
	if err != nil {
		return false, err
	}
	return time.Since(info.ModTime()) > time.Duration(ms)*time.Millisecond-keepEvery, nil
}

// Addr is host:port of the broker.
func (e *Embedded) Addr() string { return e.addr }

// Close stops the broker. Close its clients first; guests have a while to end.
func (e *Embedded) Close() (err error) {
	e.once.Do(func() {
		close(e.stop)
		e.wg.Wait()
		if e.cluster != nil {
			err = e.farewell()
			e.cluster.Close()
		}
		e.lock.Close() // and with it the flock
	})
	return err
}

// guestsWait is how long guests may go on with a broker that is about to end:
// less than a leat run that is started meanwhile waits for it.
const guestsWait = 2 * time.Second

// farewell takes no guests any more and waits until those that are here have left.
func (e *Embedded) farewell() error {
	if err := writeDiscovery(e.dir, discovery{Addr: e.addr}); err != nil {
		return fmt.Errorf("bus: embedded broker: %w", err)
	}
	f, err := openGuests(e.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for end := time.Now().Add(guestsWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return nil
		}
	}
}

func openGuests(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, guestFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("bus: embedded broker: %w", err)
	}
	return f, nil
}

// acquire takes the lock of dir. The lock is the kernel's: it ends with the
// process, however that ends.
func acquire(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("bus: embedded broker: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for i := 0; i < 10 && errors.Is(err, unix.EWOULDBLOCK); i++ {
		time.Sleep(20 * time.Millisecond) // JoinEmbedded holds it for a moment
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("bus: embedded broker: locking %s: %w", path, err)
		}
		h := readHolder(path)
		err := fmt.Errorf("bus: embedded broker in %s: %w (process %d: %s)", dir, leat.ErrInUse, h.PID, strings.Join(h.Command, " "))
		return nil, leat.Hint(err, "stop process %d, or give this one another data directory than %s", h.PID, dir)
	}
	h, err := json.Marshal(holder{PID: os.Getpid(), Command: os.Args})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(h, '\n'), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("bus: embedded broker: writing %s: %w", path, err)
	}
	return f, nil
}

func readHolder(path string) holder {
	var h holder
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &h) // it is being written: pid 0 is all that is known
	}
	return h
}

// Guest uses the broker of another process, which does not end meanwhile unless
// it is killed or the guest stays long.
type Guest struct {
	Addr string   // host:port of the broker
	stay *os.File // locked
}

// Close says that the broker is not used any more.
func (g *Guest) Close() error { return g.stay.Close() }

// JoinEmbedded finds the broker that another process runs on dir. running is
// false where none does, whatever files a killed one has left.
func JoinEmbedded(dir string) (g *Guest, running bool, err error) {
	if _, err := os.Stat(filepath.Join(dir, lockFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	g = &Guest{}
	if g.stay, err = openGuests(dir); err != nil {
		return nil, false, err
	}
	if err = unix.Flock(int(g.stay.Fd()), unix.LOCK_SH); err == nil {
		g.Addr, running, err = embeddedAddr(dir)
	}
	if err != nil || !running {
		g.stay.Close()
		return nil, running, err
	}
	return g, true, nil
}

func embeddedAddr(dir string) (addr string, running bool, err error) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return "", false, fmt.Errorf("bus: looking for the broker of %s: %w", dir, err)
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case err == nil: // nobody holds it; Close gives it back
		return "", false, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		return "", false, fmt.Errorf("bus: looking for the broker of %s: %w", dir, err)
	}
	h := readHolder(filepath.Join(dir, lockFile))
	d, err := readDiscovery(dir)
	if err == nil && d.PID != h.PID {
		err = fmt.Errorf("%s is of process %d", addrFile, d.PID) // left by one that was killed, or is about to end
	}
	if err != nil {
		err = fmt.Errorf("bus: looking for the broker of %s: %w", dir, err)
		return "", true, leat.Hint(err, "process %d is starting or ending, or the file is damaged: try again, then restart that process", h.PID)
	}
	return d.Addr, true, nil
}

func readDiscovery(dir string) (discovery, error) {
	var d discovery
	path := filepath.Join(dir, addrFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	if _, _, err := net.SplitHostPort(d.Addr); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func writeDiscovery(dir string, d discovery) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, addrFile+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, addrFile))
}

// brokerLog passes on what kfake warns of.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Error("broker: " + fmt.Sprintf(format, args...))
	case kfake.LogLevelWarn:
		l.log.Warn("broker: " + fmt.Sprintf(format, args...))
	}
}
