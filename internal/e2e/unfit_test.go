package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/segmentio/kafka-go"

	"leat/internal/testenv"
	"leat/internal/testenv/local"
)

// refused checks that `leat validate --connect` says what is wrong, with a
// hint that says what to do.
func (p *pipeline) refused(says, remedy string) {
	p.t.Helper()
	out, code := p.output("", "validate", "--connect")
	if code != 1 || !strings.Contains(out, says) || !strings.Contains(out, "hint: ") || !strings.Contains(out, remedy) {
		p.t.Errorf("validate --connect: exit code %d; it does not speak of %q with the hint %q:\n%s", code, says, remedy, out)
	}
	if strings.Contains(out, "secretword") {
		p.t.Errorf("it shows a secret:\n%s", out)
	}
}

// ends checks that `leat run` does not start on what needs an operator, and says
// what is wrong, and in a hint what to do.
func (p *pipeline) ends(says ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := p.command("run")
	done := make(chan []byte, 1)
	go func() {
		out, _ := cmd.CombinedOutput()
		done <- out
	}()
	select {
	case out := <-done:
		for _, s := range append(says, "hint: ") {
			if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), s) {
				p.t.Errorf("run: exit code %d; it does not speak of %q:\n%s", code, s, out)
			}
		}
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		p.t.Errorf("run does not end; it says:\n%s", <-done)
	}
}

// retries waits until status says, with a hint, that a stage or source retries.
func (p *pipeline) retries(name, says string) {
	p.t.Helper()
	until(p.t, 5*time.Minute, "status says what "+name+" waits for", func() error {
		p.alive()
		st := p.status()
		for _, s := range append(st.Stages, st.Sources...) {
			if s.Name == name && s.State == "retrying" && strings.Contains(s.Error, says) && s.Hint != "" {
				return nil
			}
		}
		return fmt.Errorf("%+v", st)
	})
}

// finds waits until a text is found.
func (p *pipeline) finds(word, document string) {
	p.t.Helper()
	until(p.t, 5*time.Minute, word+" is found", func() error {
		p.alive()
		if out, _ := p.output("", "search", "--mode", "text", word); !strings.Contains(out, document) {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
}

// TestUnfitStack points leat at servers that it cannot work with, or not yet:
// validate and run say what is wrong and what to do, once; what can heal heals.
func TestUnfitStack(t *testing.T) {
	notes := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(notes, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("first.md", "The first says gurglewick.\n")
	source := folderSource("notes", notes)

	t.Run("Elasticsearch, wrong password", func(t *testing.T) {
		es := testenv.Elasticsearch(t, testenv.Flags("xpack.security.enabled=true"))
		p := newPipeline(t, nullModel(t)+fmt.Sprintf("elasticsearch: {urls: [%q], user: root, password: secretword}\n", es.URL()), source)
		p.refused("text index", "password")
		p.start()
		p.retries("text-indexer", "")
		p.stop()
	})
	t.Run("Elasticsearch, disk full", func(t *testing.T) {
		es := testenv.Elasticsearch(t)
		p := newPipeline(t, nullModel(t)+fmt.Sprintf("elasticsearch: {urls: [%q], replicas: 0}\n", es.URL()), source)
		p.start()
		p.finds("gurglewick", "first.md")
		block := func(value any) { // what Elasticsearch does itself at its flood stage
			var ignored any
			x := elasticIndex{es.URL(), "test-g1"}
			if err := x.call(http.MethodPut, "/test-g1/_settings", map[string]any{"index.blocks.read_only_allow_delete": value}, &ignored); err != nil {
				t.Fatal(err)
			}
		}
		block(true)
		write("second.md", "The second says drizzlehook.\n")
		p.retries("text-indexer", "disk")
		block(nil)
		p.finds("drizzlehook", "second.md")
		p.noDeadLetters()
		p.stop()
	})
	t.Run("Milvus, another dimension", func(t *testing.T) {
		at := fmt.Sprintf("milvus: {address: %q}\n", testenv.Milvus(t).Addr())
		if _, code := newPipeline(t, nullModel(t)+at, source).output("", "run", "--once"); code != 0 {
			t.Fatalf("run --once: exit code %d", code)
		}
		other := newPipeline(t, nullModelOf(t, 32)+at, source)
		other.refused("dimension", "leat reindex")
		other.ends("dimension")
	})
	t.Run("Kafka, away at the start", func(t *testing.T) {
		k := testenv.Kafka(t, testenv.Own())
		k.Stop(t)
		p := newPipeline(t, nullModel(t)+fmt.Sprintf("kafka: {brokers: [%q]}\n", k.Addr()), source)
		p.refused(k.Addr(), "run and can be reached")
		p.start()
		says := func(limit time.Duration, what string, words ...string) {
			until(t, limit, what, func() error {
				p.alive()
				log := p.process.LogTail(3000)
				for _, w := range words {
					if !strings.Contains(log, w) {
						return fmt.Errorf("it does not say %q, but %q", w, log)
					}
				}
				return nil
			})
		}
		says(time.Minute, "leat run says what it waits for", "waiting for Kafka", k.Addr())
		k.Start(t)
		says(2*time.Minute, "leat run goes on", "leat is running")
		p.stop()
	})
	t.Run("Kafka, messages too small", func(t *testing.T) {
		k := testenv.Kafka(t)
		client := &kafka.Client{Addr: kafka.TCP(k.Addr()), Transport: &kafka.Transport{}}
		defer client.Transport.(*kafka.Transport).CloseIdleConnections()
		_, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
			Topic: "test.documents", NumPartitions: 12, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
				{ConfigName: "cleanup.policy", ConfigValue: "compact"}, {ConfigName: "max.message.bytes", ConfigValue: "1000"},
				{ConfigName: "delete.retention.ms", ConfigValue: "604800000000"},
			},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		p := newPipeline(t, nullModel(t)+fmt.Sprintf("kafka: {brokers: [%q]}\n", k.Addr()), source)
		p.refused("max.message.bytes", "kafka-configs.sh")
		p.ends("max.message.bytes")
	})
	t.Run("Kafka, expired certificate and wrong password", func(t *testing.T) {
		ca := testenv.Authority(t)
		var expired local.KafkaListener
		var err error
		if expired.Cert, expired.Key, err = ca.Issue("expired", time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		k := testenv.Kafka(t, testenv.KafkaListener("expired", expired), testenv.KafkaListener("sasl", local.KafkaListener{Users: map[string]string{"leat": "right"}}))
		p := newPipeline(t, nullModel(t)+fmt.Sprintf("kafka: {brokers: [%q], tls: {ca_file: %q}}\n", k.Listener("expired"), ca.CertFile), source)
		p.refused("expired", "certificate")
		p.ends("expired")
		p = newPipeline(t, nullModel(t)+fmt.Sprintf("kafka: {brokers: [%q], sasl: {mechanism: SCRAM-SHA-512, user: leat, password: secretword}}\n", k.Listener("sasl")), source)
		p.refused("broker", "password")
		p.ends("leat")
	})
	t.Run("no bucket", func(t *testing.T) {
		store := testenv.MinIO(t)
		const bucket = "leat-later"
		p := newPipeline(t, nullModel(t), fmt.Sprintf("  - name: box\n    s3: {endpoint: %q, access_key: %s, secret_key: %s, bucket: %s}\n",
			store.URL(), store.AccessKey, store.SecretKey, bucket))
		p.refused(bucket, "bucket")
		p.start()
		p.retries("s3:box", bucket)
		if err := store.Client().MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := store.Client().RemoveBucketWithOptions(context.Background(), bucket, minio.RemoveBucketOptions{ForceDelete: true}); err != nil {
				t.Error(err)
			}
		}()
		const text = "The third says moonjar.\n"
		if _, err := store.Client().PutObject(t.Context(), bucket, "third.md", strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
		p.finds("moonjar", "third.md")
		p.stop()
	})
}
