package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"leat/sinks/elastic"
	"leat/sinks/milvus"
	"leat/sources/folder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// TestBad holds every mistake to its message: one file each, and its message
// beside it.
func TestBad(t *testing.T) {
	t.Setenv("LEAT_TEST_USER", "hunter2")
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			p, err := Load(file)
			if err == nil {
				t.Fatalf("no error; read %+v", p)
			}
			var one *Error
			if !errors.As(err, &one) {
				t.Errorf("%T holds no *Error", err)
			}
			got := err.Error() + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("the message tells a secret:\n%s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

const shipped = "../../pipeline.yaml"

// TestShipped reads the repository's own pipeline.yaml.
func TestShipped(t *testing.T) {
	p, err := Load(shipped)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(shipped)
	want := &Pipeline{
		Name:    "leat",
		DataDir: filepath.Join(root, "leat-data"),
		Sources: []Source{{Name: "notes", Folder: &folder.Config{Path: filepath.Join(root, "knowledge")}}},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if kind := p.Sources[0].Kind(); kind != "folder" {
		t.Errorf("kind %q", kind)
	}
}

// TestShippedExamples reads it with its examples: the lines that begin with a
// bare # and are no prose, which has one space behind it.
func TestShippedExamples(t *testing.T) {
	t.Setenv("LEAT_MYSQL_PASSWORD", "secret")
	t.Setenv("LEAT_S3_SECRET_KEY", "secret of S3")
	t.Setenv("LEAT_KAFKA_PASSWORD", "secret")
	t.Setenv("LEAT_ELASTIC_PASSWORD", "secret")
	t.Setenv("LEAT_MILVUS_PASSWORD", "secret")
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^#([a-z]|  )`)
	if n := len(example.FindAll(text, -1)); n < 10 {
		t.Fatalf("%d lines of examples", n)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, DefaultFile)
	if err := os.WriteFile(file, example.ReplaceAll(text, []byte("$1")), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sources) != 3 || p.Sources[1].Kind() != "mysql" || p.Sources[1].MySQL.Password.Reveal() != "secret" ||
		p.Sources[2].Kind() != "s3" || p.Sources[2].S3.SecretKey.Reveal() != "secret of S3" {
		t.Errorf("sources %+v", p.Sources)
	}
	want := &Kafka{
		Brokers: []string{"127.0.0.1:9092"}, Replication: 3,
		TLS:  &TLS{filepath.Join(dir, "kafka-ca.pem"), filepath.Join(dir, "leat.pem"), filepath.Join(dir, "leat.key")},
		SASL: &SASL{"SCRAM-SHA-512", "leat", "secret"},
	}
	if diff := cmp.Diff(want, p.Kafka); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	elasticsearch := &elastic.Config{URLs: []string{"https://127.0.0.1:9200"}, User: "leat", Password: "secret",
		CAFile: filepath.Join(dir, "elasticsearch-ca.pem"), Shards: 1, Replicas: new(1)}
	if diff := cmp.Diff(elasticsearch, p.Elasticsearch); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(&milvus.Config{Address: "127.0.0.1:19530", User: "leat", Password: "secret"}, p.Milvus); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if p.Embedder.OpenAI == nil || p.Embedder.OpenAI.Dimension != 1024 {
		t.Errorf("embedder %+v", p.Embedder.OpenAI)
	}
	if p.Sources[0].Folder.Rescan != time.Minute || p.Chunker.MaxTokens == 0 {
		t.Errorf("%+v %+v", p.Sources[0].Folder, p.Chunker)
	}
}
