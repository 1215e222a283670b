package s3

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"go.uber.org/goleak"

	"leat"
	"leat/internal/testenv"
	"leat/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a bucket whose documents have keys of all kinds.
type origin struct {
	server *testenv.ObjectStore
	bucket string
}

func (o origin) key(key int) string {
	switch key % 6 {
	case 0:
		return fmt.Sprintf("deep/er/%d.md", key)
	case 1:
		return fmt.Sprintf("%d.md", key)
	case 2:
		return fmt.Sprintf("文件夹/第 %d 份.txt", key)
	case 3:
		return fmt.Sprintf("deep-%d/file #%d%%41+b.txt", key, key)
	case 4:
		return fmt.Sprintf("deep/%d+&='\"<>.html", key)
	}
	return fmt.Sprintf("line\nbreak\x01 %d.md", key)
}

func (o origin) Open(t *testing.T) leat.Source {
	s, err := New("docs", config(o.server, o.bucket), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func config(server *testenv.ObjectStore, bucket string) Config {
	return Config{Endpoint: server.URL(), AccessKey: server.AccessKey, SecretKey: leat.Secret(server.SecretKey), Bucket: bucket}
}

func (o origin) Put(t *testing.T, key int, body string) {
	t.Helper()
	if _, err := o.server.Client().PutObject(t.Context(), o.bucket, o.key(key), strings.NewReader(body), int64(len(body)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (o origin) Delete(t *testing.T, key int) {
	t.Helper()
	if err := o.server.Client().RemoveObject(t.Context(), o.bucket, o.key(key), minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (o origin) Rename(t *testing.T, from, to int) {
	t.Helper()
	if _, err := o.server.Client().CopyObject(t.Context(), minio.CopyDestOptions{Bucket: o.bucket, Object: o.key(to)},
		minio.CopySrcOptions{Bucket: o.bucket, Object: o.key(from)}); err != nil {
		t.Fatal(err)
	}
	o.Delete(t, from)
}

func (o origin) ID(key int) string { return (&Source{name: "docs"}).id(o.key(key)) }

func TestConformance(t *testing.T) {
	server := testenv.MinIO(t)
	for name, versioned := range map[string]bool{"Plain": false, "Versioned": true} {
		t.Run(name, func(t *testing.T) {
			sourcetest.Run(t, sourcetest.Harness{
				Source: "s3:docs",
				New:    func(t *testing.T) sourcetest.Origin { return origin{server, server.Bucket(t, versioned)} },
			})
		})
	}
}
