package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"leat"
)

const (
	batchEvents = 512     // events and bytes after which a batch is handed over
	batchBytes  = 1 << 20 // at the end of a transaction …
	splitFactor = 4       // … and inside one when it holds this many times as much
	saveEvery   = 10 * time.Second
	reportEvery = 2 * time.Second
)

// run is one call of Run: the goroutine that applies the binlog's events in
// order, hands over batches and interleaves the snapshot.
type run struct {
	s       *Source
	session leat.Session
	c       *conn // for the loop's own queries
	server  *server
	tables  map[string]*table // by database.table as the server writes it
	order   []*table
	maker   *maker

	state *state
	set   *gtids // emitted transactions; becomes state.GTID when a batch is handed over

	stream *stream
	file   string   // that the stream is in
	number uint32   // of file
	seen   position // end of the last event read
	end    position // end of the last transaction: state.File and state.Pos

	transaction
	layouts map[string]*mapLayout // by a captured table map's bytes
	cells   []cell
	before  []cell
	scratch []byte

	out      []leat.Event
	outBytes int
	moved    bool // the position has changed since it was last handed over
	saved    time.Time
	newest   time.Time // change read

	snapshot snapshot
	empty    bool              // the index held nothing of the source when this began, and no table was read anew
	resyncs  map[*table]string // to do at the next boundary, and why
	altered  []*table          // since the position was saved, …
	present  position          // … the end of the binlog when it was found
	target   *logStatus        // Session.Once: where to end
}

// Run implements leat.Source.
func (s *Source) Run(ctx context.Context, session leat.Session) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := s.run(ctx, session)
	if ctx.Err() != nil {
		return nil // what failed is that ctx's end breaks the connections
	}
	return err
}

func (s *Source) run(ctx context.Context, session leat.Session) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	tables, err := s.prepare(ctx, c)
	if err != nil {
		return err
	}
	r := &run{
		s: s, session: session, c: c, server: c.server, order: tables,
		tables: map[string]*table{}, maker: newMaker(s.name), layouts: map[string]*mapLayout{}, resyncs: map[*table]string{},
		saved: time.Now(),
	}
	for _, t := range tables {
		r.tables[t.name] = t
	}
	if session.Once {
		target, err := c.logStatus(ctx)
		if err != nil {
			return s.explain(err, "reading the binlog's status of")
		}
		r.target = &target
	}
	if session.Position == nil || session.Again {
		err = r.begin(ctx)
	} else {
		err = r.resume(ctx)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	if r.stream, err = s.openStream(ctx, r.server, r.set.GTIDSet); err != nil {
		cancel()
		return err
	}
	defer r.stream.close()
	defer cancel()
	r.snapshot.results, r.snapshot.estimate = make(chan *chunk, 1), map[*table]int64{}
	defer r.snapshot.stop()
	return r.loop(ctx)
}

// begin is the very first run, or one whose position was given up: it starts
// at the present end of the binlog with a snapshot of every table.
func (r *run) begin(ctx context.Context) error {
	// An epoch above all that the index holds, so that this snapshot replaces
	// whatever an earlier history left there (I2).
	epoch := min(r.session.Epoch, maxEpoch)
	r.empty = true
	for d, err := range r.session.Known(ctx, leat.DocumentID("mysql", r.s.name)+"/") {
		if err != nil {
			return fmt.Errorf("listing the documents of source %s: %w", r.s.name, err)
		}
		epoch, r.empty = max(epoch, d.Version>>epochBits+1), false
	}
	if epoch > maxEpoch {
		return fmt.Errorf("source %s: epoch %d is past %d", r.s.name, epoch, maxEpoch)
	}
	r.state = &state{Flavor: r.server.flavor, Server: r.server.id, Epoch: max(epoch, 1), Tables: map[string]*progress{}}
	status, err := r.c.logStatus(ctx)
	if err != nil {
		return r.s.explain(err, "reading the binlog's status of")
	}
	if r.server.mariadb() {
		// gtid_binlog_pos may count a transaction that is not yet visible: take
		// the one that belongs to a consistent snapshot.
		at, err := r.c.beginSnapshot(ctx)
		if err != nil {
			return r.s.explain(err, "starting a snapshot on")
		}
		status.file, status.pos = at.file, at.pos
		rows, err := r.c.rows(ctx, fmt.Sprintf("SELECT BINLOG_GTID_POS(%s,%d)", quoteText(at.file), at.pos))
		if err != nil {
			return r.s.explain(err, "reading the GTID position of")
		}
		status.gtid = rows[0][0]
		if _, err := r.c.do(ctx, "COMMIT"); err != nil {
			return r.s.explain(err, "ending a snapshot on")
		}
	}
	if r.set, err = parseGTIDs(r.server.flavor, status.gtid); err != nil {
		return err
	}
	r.file = status.file
	if r.number, err = fileNumber(status.file); err != nil {
		return err
	}
	// Of MySQL, transactions that the set lacks may stand before status.pos:
	// begin the positions below them.
	r.end = position{r.number, 4}
	if r.server.mariadb() {
		r.end.pos = status.pos
	}
	r.moved = true
	r.session.Log.Info("first start: snapshot, then the binlog", "source", r.s.name, "from", status.file, "epoch", r.state.Epoch)
	return nil
}

// resume continues from the saved position.
func (r *run) resume(ctx context.Context) error {
	var err error
	if r.state, err = parseState(r.session.Position); err != nil {
		return leat.Hint(err, "leat reindex --from-source begins anew")
	}
	if r.set, err = r.s.checkHistory(ctx, r.c, r.state); err != nil {
		return err
	}
	if r.state.Server != r.server.id {
		// Another server with the same history (failover): its positions are
		// its own. Every start finds the same change again until a position of
		// the new epoch is saved, so a crash in between repeats the versions.
		r.session.Log.Warn("the source is another server now", "source", r.s.name, "was", r.state.Server, "is", r.server.id, "epoch", r.state.Epoch+1)
		r.state.Server, r.state.File, r.state.Pos = r.server.id, "", 0
		if err := r.raiseEpoch(); err != nil {
			return err
		}
		r.moved = true
	}
	if r.state.File != "" {
		if r.end.file, err = fileNumber(r.state.File); err != nil {
			return err
		}
		r.end.pos = r.state.Pos
	}
	for name, p := range r.state.Tables {
		t := r.tables[name]
		if t == nil || p.Config != t.config { // no longer configured, or otherwise
			delete(r.state.Tables, name)
			r.moved = true
		} else if p.Shape != t.read.shape {
			r.altered = append(r.altered, t)
		}
	}
	status, err := r.c.logStatus(ctx)
	if err == nil {
		r.present, err = status.position()
	}
	if err != nil {
		return r.s.explain(err, "reading the binlog's status of")
	}
	r.session.Log.Info("resuming", "source", r.s.name, "position", r.state.describe())
	return nil
}

func (r *run) raiseEpoch() error {
	if r.state.Epoch == maxEpoch {
		return fmt.Errorf("source %s: the epoch cannot rise above %d", r.s.name, maxEpoch)
	}
	r.state.Epoch++
	return nil
}

func (r *run) loop(ctx context.Context) error {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	if err := r.report(ctx); err != nil {
		return err
	}
	var items []item
	for {
		var err error
		clear(items)
		if items, err = r.stream.take(items); err != nil {
			return err
		}
		for i := range items {
			if err := r.apply(ctx, &items[i]); err != nil {
				return err
			}
		}
		if done, err := r.idle(ctx); done || err != nil {
			return err
		}
		if len(items) > 0 { // more may have come meanwhile
			select {
			case <-ticker.C:
				if err := r.report(ctx); err != nil {
					return err
				}
			default:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.stream.ready:
		case c := <-r.snapshot.results:
			if err := r.snapshot.arrived(c); err != nil {
				return r.s.explain(err, "reading from")
			}
		case <-ticker.C:
			if err := r.report(ctx); err != nil {
				return err
			}
		}
	}
}

// idle does what is due between transactions: the snapshot, handing over what
// has gathered, and finding out whether that is all.
func (r *run) idle(ctx context.Context) (done bool, err error) {
	if r.open {
		return false, nil
	}
	if err := r.checkAltered(ctx); err != nil {
		return false, err
	}
	if err := r.advanceSnapshot(ctx); err != nil {
		return false, err
	}
	complete := r.snapshotDone()
	caughtUp := complete && r.target != nil && r.reachedTarget()
	if len(r.out) > 0 || r.moved && (caughtUp || time.Since(r.saved) > saveEvery) {
		if err := r.flush(ctx); err != nil {
			return false, err
		}
	}
	if caughtUp {
		return true, r.report(ctx)
	}
	return false, nil
}

// checkAltered: the statement that altered a table is in the binlog and was
// met by now, unless its session kept it out (sql_log_bin=0).
func (r *run) checkAltered(ctx context.Context) error {
	if len(r.altered) == 0 || r.place().less(r.present) {
		return nil
	}
	for _, t := range r.altered {
		if p := r.state.Tables[t.name]; p != nil && t.read != nil && p.Shape != t.read.shape {
			r.resyncs[t] = "its columns have changed"
		}
	}
	r.altered = nil
	return r.resync(ctx)
}

func (r *run) reachedTarget() bool {
	if at, err := r.target.position(); err == nil && !r.place().less(at) {
		return true
	}
	if r.target.gtid == "" {
		return false
	}
	target, err := gomysql.ParseGTIDSet(r.server.flavor, r.target.gtid)
	return err == nil && r.set.Contain(target)
}

// place is how far the stream has been read.
func (r *run) place() position {
	if r.seen.less(r.end) {
		return r.end // it begins at or before the position
	}
	return r.seen
}

// add gathers an event.
func (r *run) add(ctx context.Context, e leat.Event, size int) error {
	if r.out == nil {
		r.out = make([]leat.Event, 0, batchEvents)
	}
	r.out = append(r.out, e)
	r.outBytes += size
	if len(r.out) >= splitFactor*batchEvents || r.outBytes >= splitFactor*batchBytes {
		return r.flush(ctx)
	}
	return nil
}

// flush hands over what has gathered. Only between transactions is it a place
// to resume at (I1).
func (r *run) flush(ctx context.Context) error {
	if len(r.out) == 0 && !r.moved {
		return nil
	}
	b := leat.Batch{Events: r.out}
	if !r.open {
		position, err := r.position()
		if err != nil {
			return err
		}
		b.Position, r.moved, r.saved = position, false, time.Now()
	}
	if n := len(r.out); n > 0 && !r.out[n-1].Time.Before(r.newest) {
		r.newest = r.out[n-1].Time
	}
	r.out, r.outBytes = nil, 0
	return r.session.Emit(ctx, b)
}

func (r *run) position() (json.RawMessage, error) {
	r.state.GTID = r.set.String()
	if r.end.file == r.number {
		r.state.File = r.file
	}
	r.state.Pos = r.end.pos
	raw, err := json.Marshal(r.state)
	if err != nil {
		return nil, fmt.Errorf("position of source %s: %w", r.s.name, err)
	}
	return raw, nil
}

// report tells progress; how far behind costs a query, so it is asked seldom.
func (r *run) report(ctx context.Context) error {
	p := leat.Progress{Phase: "streaming", Position: fmt.Sprintf("%s:%d", r.file, r.place().pos), Time: r.newest}
	if !r.snapshotDone() {
		p.Phase = "snapshot"
		p.Done, p.Total = r.snapshotProgress()
	}
	rows, err := r.c.rows(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return r.s.explain(err, "listing the binlogs of")
	}
	p.Behind = behind(rows, r.place())
	r.session.Report(p)
	return nil
}

// behind is how many bytes of the binlogs, listed by name and size, lie past p.
func behind(logs [][]string, p position) (bytes int64) {
	for _, l := range logs {
		n, err := fileNumber(l[0])
		size, err2 := strconv.ParseInt(strings.TrimSpace(l[1]), 10, 64)
		if err != nil || err2 != nil || n < p.file {
			continue
		}
		if n == p.file {
			size -= int64(p.pos)
		}
		bytes += max(size, 0)
	}
	return bytes
}
