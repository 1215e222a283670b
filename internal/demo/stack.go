package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"leat/internal/testenv/local"
)

// stack is the servers of the demo, besides the database.
type stack struct {
	kafka         *local.Kafka
	elasticsearch *local.Elasticsearch
	milvus        *local.Milvus
	minio         *local.MinIO
}

// Each stage runs as so many processes: a second one of sources stands by.
var stages = []struct {
	name      string
	processes int
}{
	{"sources", 2}, {"chunker", 1}, {"embedder", 2}, {"text-indexer", 1}, {"vector-indexer", 1},
}

// startServers starts the servers of the stack at the same time.
func (d *demo) startServers(ctx context.Context) error {
	d.stack = &stack{}
	g, gctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	start := func(name, what string, run func(dir string) (p io.Closer, at string, err error)) {
		g.Go(func() error {
			began := time.Now()
			dir := filepath.Join(d.dir, strings.ToLower(name))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			p, at, err := run(dir)
			mu.Lock()
			defer mu.Unlock()
			if p != nil {
				d.onClose(p.Close)
			}
			if err != nil {
				if errors.Is(err, local.ErrNotInstalled) {
					err = fmt.Errorf("%w: run `make servers`", err)
				}
				return err
			}
			d.row(strings.ToLower(name), name+" "+what+" on "+at, "up after "+seconds(time.Since(began)))
			return nil
		})
	}
	start("Kafka", "4.4.0", func(dir string) (io.Closer, string, error) {
		in, err := local.FindKafka()
		if err != nil {
			return nil, "", err
		}
		if d.stack.kafka, err = local.StartKafka(gctx, in, dir, local.KafkaConfig{}); err != nil {
			return nil, "", err
		}
		return killed{d.stack.kafka.Process}, d.stack.kafka.Addr(), nil
	})
	start("Elasticsearch", "8.19", func(dir string) (io.Closer, string, error) {
		in, err := local.FindElasticsearch()
		if err != nil {
			return nil, "", err
		}
		if d.stack.elasticsearch, err = local.StartElasticsearch(gctx, in, dir); err != nil {
			return nil, "", err
		}
		return d.stack.elasticsearch, d.stack.elasticsearch.URL(), nil
	})
	start("Milvus", "2.3.5", func(dir string) (io.Closer, string, error) {
		in, err := local.FindMilvus()
		if err != nil {
			return nil, "", err
		}
		if d.stack.milvus, err = local.StartMilvus(gctx, in, dir, "proxy.timeTickInterval=50"); err != nil {
			return nil, "", err
		}
		return killed{d.stack.milvus.Process}, d.stack.milvus.Addr(), nil
	})
	start("MinIO", "2025-09-07", func(dir string) (io.Closer, string, error) {
		program, err := local.FindMinIO()
		if err != nil {
			return nil, "", err
		}
		if d.stack.minio, err = local.StartMinIO(gctx, program, dir, nil, nil); err != nil {
			return nil, "", err
		}
		return killed{d.stack.minio.Process}, d.stack.minio.URL(), nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	var err error
	d.place, err = newBucket(ctx, d.stack.minio)
	return err
}

// killed closes a server whose data goes with the demo.
type killed struct{ *local.Process }

func (k killed) Close() error { return k.Kill() }

// config is the servers' part of pipeline.yaml.
func (s *stack) config() string {
	return fmt.Sprintf(`
kafka:
  brokers: [%s]

elasticsearch:
  urls: [%s]
  replicas: 0

milvus:
  address: %s
`, s.kafka.Addr(), s.elasticsearch.URL(), s.milvus.Addr())
}

// startStages starts every stage as processes of its own.
func (d *demo) startStages(ctx context.Context) error {
	for _, s := range stages {
		began := time.Now()
		for n := range s.processes {
			name := "leat run --stages " + s.name
			if s.processes > 1 {
				name += fmt.Sprintf(" %d", n+1)
			}
			if err := d.startLeat(ctx, name, "--stages", s.name); err != nil {
				return err
			}
		}
		d.row(s.name, fmt.Sprintf("leat run --stages %s, %d of it", s.name, s.processes), "up after "+millis(time.Since(began)))
	}
	return nil
}

// bucket is a place in an object store.
type bucket struct {
	server *local.MinIO
	client *minio.Client
}

const bucketName = "knowledge"

func newBucket(ctx context.Context, server *local.MinIO) (bucket, error) {
	c, err := minio.New(server.Addr(), &minio.Options{
		Creds:     credentials.NewStaticV4(local.MinIOUser, local.MinIOPassword, ""),
		Transport: &http.Transport{DisableKeepAlives: true},
	})
	if err != nil {
		return bucket{}, err
	}
	return bucket{server, c}, c.MakeBucket(ctx, bucketName, minio.MakeBucketOptions{})
}

func (b bucket) what() string  { return "bucket" }
func (b bucket) where() string { return b.server.URL() + "/" + bucketName }
func (b bucket) config() string {
	return fmt.Sprintf(`  - name: knowledge
    s3:
      endpoint: %s
      access_key: %s
      secret_key: %s
      bucket: %s
`, b.server.URL(), local.MinIOUser, local.MinIOPassword, bucketName)
}

func (b bucket) try() string {
	return fmt.Sprintf("echo 'Keys hang behind the blue door.' | curl -sS -T - --aws-sigv4 aws:amz:us-east-1:s3 --user %s:%s %s/keys.txt",
		local.MinIOUser, local.MinIOPassword, b.where())
}

func (b bucket) put(name, text string) error {
	_, err := b.client.PutObject(context.Background(), bucketName, name, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{})
	return err
}

func (b bucket) remove(name string) error {
	return b.client.RemoveObject(context.Background(), bucketName, name, minio.RemoveObjectOptions{})
}

func (b bucket) count() (n int64, err error) {
	for o := range b.client.ListObjects(context.Background(), bucketName, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			return 0, o.Err
		}
		n++
	}
	return n, nil
}
