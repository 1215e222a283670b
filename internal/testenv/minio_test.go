package testenv

import (
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

func TestMinIO(t *testing.T) {
	began := time.Now()
	s := MinIO(t, Own())
	t.Logf("up in %v", time.Since(began))
	bucket := s.Bucket(t, true)
	if _, err := s.Client().PutObject(t.Context(), bucket, "a b", strings.NewReader("text"), 4, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	for how, stop := range map[string]func(testing.TB){"stop": s.Stop, "kill": s.Kill} {
		addr := s.Addr()
		stop(t)
		s.Start(t)
		if s.Addr() != addr {
			t.Errorf("after %s it is at %s, not %s", how, s.Addr(), addr)
		}
		o, err := s.Client().StatObject(t.Context(), bucket, "a b", minio.StatObjectOptions{})
		if err != nil || o.Size != 4 || o.VersionID == "" {
			t.Errorf("after %s and start: %+v, %v", how, o, err)
		}
	}
}

// A server that was running already is the test's, with empty buckets.
func TestMinIOElsewhere(t *testing.T) {
	// As shipped it answers while it still heals the buckets that it found at its
	// start, and one that is removed meanwhile comes back.
	other := MinIO(t, Env("MINIO_SYNC_BOOT=on"))
	t.Setenv("LEAT_TEST_MINIO", other.AccessKey+":"+other.SecretKey+"@"+other.Addr())
	bucket := ""
	t.Run("Test", func(t *testing.T) {
		s := MinIO(t)
		if s.Addr() != other.Addr() {
			t.Fatalf("at %s", s.Addr())
		}
		bucket = s.Bucket(t, false)
		if _, err := s.Client().PutObject(t.Context(), bucket, "a", strings.NewReader("text"), 4, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if there, err := other.Client().BucketExists(t.Context(), bucket); err != nil || there {
		t.Errorf("the bucket stays: %v, %v", there, err)
	}
}
