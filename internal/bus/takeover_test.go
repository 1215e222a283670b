package bus

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// leaderEnv makes this test binary lead, at the broker it names and as a member
// of the group of the topic that topicEnv names, until it is killed.
const (
	leaderEnv = "LEAT_BUS_TEST_LEADER"
	topicEnv  = "LEAT_BUS_TEST_TOPIC"
)

func led() []string {
	var names []string
	for i := range 16 {
		names = append(names, fmt.Sprintf("mysql:db%d", i))
	}
	return names
}

// leader reports on stdout what it leads.
func leader(addr string) {
	ctx := context.Background()
	c, err := New(Config{Brokers: []string{addr}}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err == nil {
		topic := os.Getenv(topicEnv)
		err = c.Lead(ctx, group(topic), topic, led(), func(ctx context.Context, name string) error {
			fmt.Println("leads", name)
			<-ctx.Done()
			return ctx.Err()
		})
	}
	fmt.Println("failed", err)
	os.Exit(1)
}

// testTakeover: what a process led that was killed is led by another soon.
func testTakeover(t *testing.T, b *broker) {
	c, topic := b.bus(t, Topic{Partitions: 4})
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), leaderEnv+"="+b.addr, topicEnv+"="+topic)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "leads ") {
		t.Fatalf("the other process: %q, %v", line, err)
	}

	var mu sync.Mutex
	leading := map[string]bool{}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(leading)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Lead(ctx, group(topic), topic, led(), func(ctx context.Context, name string) error {
			mu.Lock()
			leading[name] = true
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			delete(leading, name)
			mu.Unlock()
			return ctx.Err()
		})
	}()
	eventually(t, "both lead", func() bool { n := count(); return n > 0 && n < len(led()) })
	killed := time.Now()
	kill()
	eventually(t, "this process leads all", func() bool { return count() == len(led()) })
	t.Logf("took over after %v", time.Since(killed).Round(time.Millisecond))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
