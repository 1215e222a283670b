// Package mysql_test measures how fast the MySQL source reads rows of about
// 500 bytes, from the binlog and by snapshot, beside what go-mysql takes to
// decode the same binlog and nothing more.
//
//	go test ./bench/mysql -bench . -benchtime 1x
//
// It needs the servers of `make servers`.
package mysql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"leat"
	"leat/internal/bus"
	"leat/internal/codec"
	"leat/internal/testenv"
	"leat/sources/mysql"
)

const rows = 400_000

var quiet = slog.New(slog.DiscardHandler)

// shop is a table of rows rows, inserted by statements of 500, and where the
// binlog stood before.
type shop struct {
	db     *testenv.DB
	table  string
	before json.RawMessage // the source's position
	start  gomysql.Position
}

func open(b *testing.B, s *shop) *mysql.Source {
	b.Helper()
	src, err := mysql.New("bench", mysql.Config{Address: s.db.Addr(), User: s.db.User, Password: leat.Secret(s.db.Password), Tables: []mysql.TableConfig{
		{Table: s.table, Title: "name", Body: []string{"description"}, Metadata: []string{"price", "stock"}},
	}}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	return src
}

// run catches up from a position and returns the one it ends at.
func run(b *testing.B, s *shop, from json.RawMessage, emit func(context.Context, leat.Batch) error) json.RawMessage {
	b.Helper()
	src := open(b, s)
	defer src.Close()
	end := from
	err := src.Run(b.Context(), leat.Session{
		Position: from, Epoch: 1, Once: true, Log: quiet,
		Emit: func(ctx context.Context, batch leat.Batch) error {
			if batch.Position != nil {
				end = batch.Position
			}
			return emit(ctx, batch)
		},
		Known: func(context.Context, string) iter.Seq2[leat.DocumentState, error] {
			return func(func(leat.DocumentState, error) bool) {}
		},
		Report: func(leat.Progress) {},
	})
	if err != nil {
		b.Fatal(err)
	}
	return end
}

func discard(context.Context, leat.Batch) error { return nil }

func setup(b *testing.B, db *testenv.DB) *shop {
	b.Helper()
	s := &shop{db: db, table: db.Database(b) + ".products"}
	db.Exec(b, "CREATE TABLE "+s.table+" (id INT PRIMARY KEY, name VARCHAR(100), description TEXT, price DECIMAL(10,2), stock INT)")
	s.before = run(b, s, nil, discard)
	var file string
	var pos uint32
	var ignored [3]any
	query := "SHOW BINARY LOG STATUS"
	targets := []any{&file, &pos, &ignored[0], &ignored[1], &ignored[2]}
	if db.Flavor != "mysql" {
		query, targets = "SHOW MASTER STATUS", targets[:4]
	}
	if err := db.Root().QueryRowContext(b.Context(), query).Scan(targets...); err != nil {
		b.Fatal(err)
	}
	s.start = gomysql.Position{Name: file, Pos: pos}
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		return [...]string{"steel", "lamp", "green", "sturdy", "light", "for", "the", "garden", "quick"}[rnd.IntN(9)]
	}
	for id := 0; id < rows; {
		var q strings.Builder
		q.WriteString("INSERT INTO " + s.table + " VALUES ")
		for i := range 500 {
			if i > 0 {
				q.WriteByte(',')
			}
			var d strings.Builder
			for d.Len() < 440 {
				d.WriteString(word() + " ")
			}
			fmt.Fprintf(&q, "(%d,'%s %s %d','%s',%d.%02d,%d)", id, word(), word(), id, d.String(), rnd.IntN(1000), rnd.IntN(100), rnd.IntN(100))
			id++
		}
		db.Exec(b, q.String())
	}
	return s
}

// rate reports rows a second and, since the server and whatever else runs take
// their share of the machine, this process's own time on its CPUs.
func rate(b *testing.B, n int, took, cpu time.Duration) {
	b.ReportMetric(float64(n)/took.Seconds(), "rows/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(n), "cpu-µs/row")
	b.ReportMetric(0, "ns/op")
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkMySQL(b *testing.B)   { benchmark(b, testenv.MySQL(b)) }
func BenchmarkMariaDB(b *testing.B) { benchmark(b, testenv.MariaDB(b)) }

func benchmark(b *testing.B, db *testenv.DB) {
	s := setup(b, db)
	b.Run("go-mysql decoding", func(b *testing.B) {
		var took time.Duration
		before := cpu(b)
		for b.Loop() {
			began := time.Now()
			decode(b, s)
			took += time.Since(began)
		}
		rate(b, rows*b.N, took, cpu(b)-before)
	})
	measure := func(name string, from json.RawMessage, emit func(context.Context, leat.Batch) error, wait func()) {
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			n := 0
			before := cpu(b)
			for b.Loop() {
				began := time.Now()
				run(b, s, from, func(ctx context.Context, batch leat.Batch) error {
					n += len(batch.Events)
					return emit(ctx, batch)
				})
				wait()
				took += time.Since(began)
			}
			if n != rows*b.N {
				b.Fatalf("%d events of %d rows", n, rows*b.N)
			}
			rate(b, n, took, cpu(b)-before)
		})
	}
	measure("catch-up", s.before, discard, func() {})
	measure("snapshot", nil, discard, func() {})
	emit, wait := topic(b)
	measure("catch-up into the embedded broker", s.before, emit, wait)
	measure("snapshot into the embedded broker", nil, emit, wait)
}

// decode has go-mysql decode the binlog from s.start to its last row.
func decode(b *testing.B, s *shop) {
	b.Helper()
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 4000000000, Flavor: string(s.db.Flavor), Host: s.db.Host(), Port: uint16(s.db.Port()),
		User: s.db.User, Password: s.db.Password, Logger: quiet,
	})
	defer syncer.Close()
	stream, err := syncer.StartSync(s.start)
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; n < rows; {
		e, err := stream.GetEvent(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if r, ok := e.Event.(*replication.RowsEvent); ok {
			n += len(r.Rows)
		}
	}
}

// topic is a documents topic of an embedded broker; wait returns when all that
// was emitted is durable there.
func topic(b *testing.B) (emit func(context.Context, leat.Batch) error, wait func()) {
	b.Helper()
	broker, err := bus.StartEmbedded(b.Context(), b.TempDir(), quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { broker.Close() })
	client, err := bus.New(bus.Config{Brokers: []string{broker.Addr()}}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Close() })
	if err := client.EnsureTopics(b.Context(), bus.Topic{Name: "documents", Partitions: 4, MaxMessageBytes: bus.DefaultMaxMessageBytes}); err != nil {
		b.Fatal(err)
	}
	producer := client.NewProducer(bus.ProducerConfig{})
	b.Cleanup(func() { producer.Close() })
	pending := make(chan error, 1<<16)
	sent := 0
	emit = func(ctx context.Context, batch leat.Batch) error {
		if len(batch.Events) == 0 {
			return nil
		}
		recs := make([]bus.Record, len(batch.Events))
		for i, e := range batch.Events {
			rec, err := codec.EncodeEvent("documents", e)
			if err != nil {
				return err
			}
			recs[i] = rec
		}
		sent++
		return producer.Enqueue(ctx, recs, func(err error) { pending <- err })
	}
	wait = func() {
		for ; sent > 0; sent-- {
			if err := <-pending; err != nil {
				b.Fatal(err)
			}
		}
	}
	return emit, wait
}
