// Package program runs leat as processes of its own for benchmarks, over rows of
// a real MySQL server.
package program

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"leat/internal/testenv"
)

// Build makes the program and returns its path.
func Build(b *testing.B) string {
	b.Helper()
	bin := filepath.Join(b.TempDir(), "leat")
	if out, err := exec.Command("go", "build", "-o", bin, "leat/cmd/leat").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// Configure writes dir's pipeline.yaml: the notes of a table, and lines of further keys.
func Configure(b *testing.B, dir string, db *testenv.DB, table, lines string) {
	b.Helper()
	yaml := fmt.Sprintf(`
sources:
  - name: bench
    mysql: {address: %q, user: %q, password: %q, tables: [{table: %s, title: title, body: [body]}]}
%s
`, db.Addr(), db.User, db.Password, table, lines)
	if err := os.WriteFile(filepath.Join(dir, "pipeline.yaml"), []byte(yaml), 0o600); err != nil {
		b.Fatal(err)
	}
}

// Null is the line that configures a null model, see embeddertest.Start.
func Null(url string, dimension int) string {
	return fmt.Sprintf("embedder: {openai: {url: %q, model: stand-in, dimension: %d}}", url, dimension)
}

// Store is where a pipeline in dir keeps its embedded store.
func Store(dir string) string { return filepath.Join(dir, "leat-data", "index.db") }

// CreateNotes makes a table of a database of its own and returns its full name.
func CreateNotes(b *testing.B, db *testenv.DB) string {
	b.Helper()
	table := db.Database(b) + ".notes"
	db.Exec(b, "CREATE TABLE "+table+" (id INT PRIMARY KEY, title VARCHAR(100), body TEXT)")
	return table
}

// Note is the title and the body of a row: sentences of about 45 tokens that no
// other row has.
func Note(id, sentences int) (title, body string) {
	var text []string
	for n := id * sentences; n < (id+1)*sentences; n++ {
		text = append(text, fmt.Sprintf("Note %d says that part %d of machine %d was changed on day %d, and that the next look is due when it has run for %d hours.", n, n%97, n%31, n%365, n%1000))
	}
	return fmt.Sprintf("Note %d", id), strings.Join(text, " ")
}

// AddNotes inserts the rows from first to before end.
func AddNotes(b *testing.B, db *testenv.DB, table string, first, end, sentences int) {
	b.Helper()
	for id := first; id < end; {
		var q strings.Builder
		q.WriteString("INSERT INTO " + table + " VALUES ")
		for sep := ""; id < end && q.Len() < 1<<20; id, sep = id+1, "," {
			title, body := Note(id, sentences)
			fmt.Fprintf(&q, "%s(%d,'%s','%s')", sep, id, title, body)
		}
		db.Exec(b, q.String())
	}
}

// Start runs leat in dir until the benchmark ends, and ends it in good order.
func Start(b *testing.B, bin, dir string, args ...string) *os.Process {
	b.Helper()
	cmd := started(b, bin, dir, args)
	b.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
			b.Error(cmd, err)
		}
	})
	return cmd.Process
}

// StartEndless runs what will not have ended when the benchmark ends, and kills it.
func StartEndless(b *testing.B, bin, dir string, args ...string) {
	b.Helper()
	cmd := started(b, bin, dir, args)
	b.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			b.Errorf("%s has ended: %v", cmd, errors.Join(err, cmd.Wait()))
			return
		}
		_ = cmd.Wait() // killed
	})
}

func started(b *testing.B, bin, dir string, args []string) *exec.Cmd {
	b.Helper()
	cmd := command(bin, dir, args)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return cmd
}

func command(bin, dir string, args []string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Result of a process that has ended.
type Result struct {
	Output []byte
	Took   time.Duration
	PeakMB float64 // resident memory at most
}

// Run runs leat in dir and waits for its end, which has to be a good one.
func Run(b *testing.B, bin, dir string, args ...string) Result {
	b.Helper()
	var out bytes.Buffer
	cmd := command(bin, dir, args)
	cmd.Stdout = &out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var r Result
	for {
		select {
		case err := <-done:
			r.Output, r.Took = out.Bytes(), time.Since(began)
			if err != nil {
				b.Fatalf("leat %s: %v\n%s", strings.Join(args, " "), err, r.Output)
			}
			return r
		case <-time.After(20 * time.Millisecond):
		}
		// What wait4 tells of a child counts this process at its fork too.
		if mb, err := memory(cmd.Process.Pid, "VmHWM"); err == nil {
			r.PeakMB = mb
		}
	}
}

// ResidentMB is the resident memory of a process in MiB, as Linux tells it.
func ResidentMB(b *testing.B, pid int) float64 {
	b.Helper()
	mb, err := memory(pid, "VmRSS")
	if err != nil {
		b.Fatal(err)
	}
	return mb
}

// CPU is what a process has used of the processors so far: unlike the time that
// something takes it does not depend on what else the machine does.
func CPU(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	var ticks int
	for _, f := range strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):]))[12:14] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func memory(pid int, field string) (mb float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
			kb, err := strconv.Atoi(f[1])
			return float64(kb) / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}

// Documents is how many a benchmark is asked for by LEAT_BENCH_DOCUMENTS, or usual.
func Documents(b *testing.B, usual int) int {
	b.Helper()
	text := os.Getenv("LEAT_BENCH_DOCUMENTS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("LEAT_BENCH_DOCUMENTS is %q: want a number of documents", text)
	}
	return n
}
