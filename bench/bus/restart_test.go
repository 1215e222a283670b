package bus_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"leat/internal/bus"
)

// restartEnv makes this test binary start a broker on the directory it names,
// write as many MiB as its second field says, and die without closing it.
const restartEnv = "LEAT_BENCH_RESTART"

// BenchmarkRestart measures how long a broker takes to start on 500 MB of data
// after it was killed, and the memory that its process holds then and at most.
func BenchmarkRestart(b *testing.B) {
	if dir, mib, ok := strings.Cut(os.Getenv(restartEnv), "="); ok {
		restartChild(b, dir, mib)
	}
	dir := b.TempDir()
	child := func(mib int) string {
		cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkRestart$", "-test.benchtime=1x")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s=%d", restartEnv, dir, mib))
		out, _ := cmd.Output() // it kills itself
		_, report, _ := strings.Cut(string(out), "report ")
		line, _, _ := strings.Cut(report, "\n")
		return line
	}
	child(500)
	for b.Loop() {
		f := strings.Fields(child(0))
		if len(f) != 3 {
			b.Fatal("the broker did not start again")
		}
		for i, unit := range []string{"ms", "MiB-rss", "MiB-peak"} {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(v, unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}

func restartChild(b *testing.B, dir, mib string) {
	begun := time.Now()
	e, err := bus.StartEmbedded(b.Context(), dir, quiet)
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(begun)
	if n, err := strconv.Atoi(mib); err == nil && n > 0 {
		c, err := bus.New(bus.Config{Brokers: []string{e.Addr()}}, quiet)
		if err != nil {
			b.Fatal(err)
		}
		t := bus.TopicSettings{Partitions: 2, Retention: 24 * time.Hour, MaxMessageBytes: bus.DefaultMaxMessageBytes}
		names := bus.Topics("bench", 1)
		if err := c.EnsureTopics(b.Context(), names.Specs(t)...); err != nil {
			b.Fatal(err)
		}
		p := c.NewProducer(bus.ProducerConfig{})
		value := bytes.Repeat([]byte("x"), 1000)
		for i := range n {
			recs := make([]bus.Record, 1024)
			for j := range recs {
				topic := [...]string{names.Documents, names.Chunks, names.Vectors}[j%3]
				recs[j] = bus.Record{Topic: topic, Key: strconv.AppendInt(nil, int64(i*1024+j), 10), Value: value}
			}
			if err := p.Produce(b.Context(), recs...); err != nil {
				b.Fatal(err)
			}
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("memory is measured on Linux alone")
	}
	memory := func(name string) int {
		_, rest, _ := strings.Cut(string(status), name+":")
		kb, _ := strconv.Atoi(strings.Fields(rest)[0])
		return kb / 1024
	}
	fmt.Println("report", took.Milliseconds(), memory("VmRSS"), memory("VmHWM"))
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	b.Fatal(err)
}
