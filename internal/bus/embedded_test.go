package bus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat"
)

// childEnv makes this test binary run a broker, a producer and a consumer on
// the directory it names, until it is killed.
const (
	childEnv  = "LEAT_BUS_TEST_CHILD"
	childFrom = "LEAT_BUS_TEST_FROM" // the first number it produces
)

const childKeys = 13

// child reports on stdout what was acknowledged to it.
func child(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	e, err := StartEmbedded(ctx, dir, log)
	fail(err)
	c, err := New(Config{Brokers: []string{e.Addr()}}, log)
	fail(err)
	fail(c.EnsureTopics(ctx, Topic{Name: "t", Partitions: 2, Compact: true}))
	ends, err := c.EndOffsets(ctx, "t")
	fail(err)
	fmt.Println("ends", ends[0]+ends[1])
	first, err := strconv.Atoi(os.Getenv(childFrom))
	fail(err)
	go func() {
		fail(c.Consume(ctx, ConsumeConfig{Group: "g", Topic: "t", MaxRecords: 20}, func(_ context.Context, batch []Record) error {
			fmt.Println("handled", batch[0].Partition, batch[len(batch)-1].Offset+1)
			return nil
		}))
	}()
	go func() {
		for ; ; time.Sleep(20 * time.Millisecond) {
			offsets, err := c.committed(ctx, "g", "t", 2)
			fail(err)
			fmt.Println("committed", offsets[0], offsets[1])
		}
	}()
	p := c.NewProducer(ProducerConfig{})
	for i := first; ; i += 5 {
		fail(p.Enqueue(ctx, numbered("t", i, i+5, childKeys), func(err error) {
			fail(err)
			fmt.Println("acked", i+5)
		}))
		time.Sleep(time.Millisecond)
	}
}

// TestKill (I1, I7): the process with broker, producer and consumer is killed
// with SIGKILL again and again; every acknowledged record is there, in order,
// and so is every acknowledged offset, none of them past what was handled.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked, handled, committed := 0, [2]int{}, [2]int{}
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childFrom+"="+strconv.Itoa(acked))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		begun, enough := acked, 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			number := func(i int) int { n, _ := strconv.Atoi(f[i]); return n }
			switch f[0] {
			case "ends":
				if number(1) < acked {
					t.Fatalf("round %d: the log holds %d records, %d were acknowledged", round, number(1), acked)
				}
			case "acked":
				acked = max(acked, number(1))
			case "handled":
				handled[number(1)] = max(handled[number(1)], number(2))
			case "committed":
				for p := range committed {
					if n := max(number(1+p), 0); n < committed[p] { // -1: none yet
						t.Fatalf("round %d: offset of partition %d fell from %d to %d", round, p, committed[p], n)
					} else {
						committed[p] = n
					}
				}
			default:
				t.Fatalf("round %d: the child says %q", round, lines.Text())
			}
			if enough++; acked >= begun+300 && committed[0] > 0 && committed[1] > 0 && enough >= 300+round*37 {
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died counts
			if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == "acked" {
				n, _ := strconv.Atoi(f[1])
				acked = max(acked, n)
			} else if len(f) == 3 && f[0] == "handled" {
				p, _ := strconv.Atoi(f[1])
				n, _ := strconv.Atoi(f[2])
				handled[p] = max(handled[p], n)
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		timer.Stop()
		if _, running, err := JoinEmbedded(dir); running || err != nil {
			t.Fatalf("round %d: after the kill JoinEmbedded says running %v, %v", round, running, err)
		}
	}

	e := startBroker(t, dir)
	c := newClient(t, e.Addr())
	offsets, err := c.committed(t.Context(), "g", "t", 2)
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(childKeys)
	total := 0
	for p := range 2 {
		if int(offsets[p]) < committed[p] || int(offsets[p]) > handled[p] {
			t.Errorf("partition %d: committed offset %d, was told %d, handled %d", p, offsets[p], committed[p], handled[p])
		}
		var all []Record
		if err := c.ReadFrom(t.Context(), "t", p, 0, func(r Record) error { all = append(all, r); return nil }); err != nil {
			t.Fatal(err)
		}
		l.add(all)
		total += len(all)
	}
	if acked < 1200 || total < acked {
		t.Errorf("%d records are there, %d were acknowledged", total, acked)
	}
	for i := range acked {
		if l.seen[i] == 0 {
			t.Fatalf("record %d was acknowledged and is lost", i)
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	if _, running, err := JoinEmbedded(dir); running || err != nil {
		t.Fatal(running, err)
	}
	e := startBroker(t, dir)
	g, running, err := JoinEmbedded(dir)
	if err != nil || !running || g.Addr != e.Addr() {
		t.Fatal(g, running, err)
	}
	if !strings.HasPrefix(g.Addr, "127.0.0.1:") {
		t.Errorf("listens on %s, not on loopback alone", g.Addr)
	}
	_, err = StartEmbedded(t.Context(), dir, testLog(t))
	if !errors.Is(err, leat.ErrInUse) {
		t.Fatalf("a second broker on the directory: %v", err)
	}
	for _, want := range []string{strconv.Itoa(os.Getpid()), dir} {
		if !strings.Contains(leat.HintOf(err), want) {
			t.Errorf("hint %q does not name %s", leat.HintOf(err), want)
		}
	}
	// A broker ends once its guest has left, and takes no other meanwhile.
	c := newClient(t, g.Addr)
	ended := make(chan error, 1)
	go func() { ended <- e.Close() }()
	for {
		other, running, err := JoinEmbedded(dir)
		if err != nil && running {
			break
		}
		if err != nil || !running {
			t.Fatalf("while the broker ends: running %v, %v", running, err)
		}
		other.Close()
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("the broker has left its guest: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the broker did not wait for its guest: %v", err)
	default:
	}
	g.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, running, err := JoinEmbedded(dir); running || err != nil {
		t.Errorf("after Close: running %v, %v", running, err)
	}
}

func TestDamagedDiscovery(t *testing.T) {
	for name, content := range map[string]string{
		"garbage":        "\x00\x01",
		"empty":          "",
		"no address":     `{"pid":1}`,
		"of another":     `{"pid":1,"addr":"127.0.0.1:1"}`,
		"port a word":    `{"pid":1,"addr":"127.0.0.1:http"}`,
		"port too large": `{"pid":1,"addr":"127.0.0.1:99999"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, addrFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			e := startBroker(t, dir) // it does not mind what a predecessor left
			g, running, err := JoinEmbedded(dir)
			if err != nil || !running || g.Addr != e.Addr() {
				t.Fatal(g, running, err)
			}
			g.Close()
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, running, err := JoinEmbedded(dir); !running || err == nil || leat.HintOf(err) == "" {
				t.Errorf("running %v, %v", running, err)
			}
		})
	}
}
