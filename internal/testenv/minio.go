package testenv

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"leat/internal/testenv/local"
)

// ObjectStore is a MinIO server for a test.
type ObjectStore struct {
	Server
	AccessKey, SecretKey string // may do everything
	secure               bool
	client               *minio.Client
	transport            *http.Transport
}

// MinIO starts a MinIO server that ends with the test. With
// Flags("--certs-dir=DIR") it speaks TLS. Where LEAT_TEST_MINIO is set
// (access-key:secret-key@host:port) and no option asks otherwise, the test gets
// that server.
func MinIO(t testing.TB, opts ...Option) *ObjectStore {
	t.Helper()
	needs(t, "MinIO")
	o := chosen(opts)
	s := &ObjectStore{AccessKey: local.MinIOUser, SecretKey: local.MinIOPassword}
	if at := os.Getenv("LEAT_TEST_MINIO"); at != "" && !o.own {
		i := strings.LastIndexByte(at, '@')
		if i < 0 {
			t.Fatal("LEAT_TEST_MINIO is not access-key:secret-key@host:port")
		}
		s.addr = at[i+1:]
		s.AccessKey, s.SecretKey, _ = strings.Cut(at[:i], ":")
	} else {
		var own *local.MinIO
		s.process = launch(t, "minio", func(ctx context.Context, dir string) (*local.Process, error) {
			program, err := local.FindMinIO()
			if err != nil {
				return nil, err
			}
			if own, err = local.StartMinIO(ctx, program, dir, o.flags, o.env); err != nil {
				return nil, err
			}
			return own.Process, nil
		})
		s.addr, s.secure = own.Addr(), own.Secure
	}
	var err error
	if s.transport, err = minio.DefaultTransport(s.secure); err != nil {
		t.Fatal(err)
	}
	if s.secure { // the tests are not about this client
		s.transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	s.client, err = minio.New(s.addr, &minio.Options{
		Creds:     credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
		Secure:    s.secure,
		Transport: s.transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.transport.CloseIdleConnections)
	return s
}

// URL is the server's address with its scheme.
func (s *ObjectStore) URL() string {
	if s.secure {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// Client is one of the account that may do everything; it survives restarts of
// the server.
func (s *ObjectStore) Client() *minio.Client { return s.client }

// Bucket makes an empty bucket with a name of its own and removes it, with all
// that is in it, at the end of the test.
func (s *ObjectStore) Bucket(t testing.TB, versioned bool) string {
	t.Helper()
	name := fmt.Sprintf("leat-%d-%d", os.Getpid(), counter.Add(1))
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(s.transport.CloseIdleConnections) // the end of each test shows what it leaked
	if err := s.client.MakeBucket(ctx, name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.process == nil { // one of the test's own goes as a whole
		t.Cleanup(func() {
			err := s.client.RemoveBucketWithOptions(ctx, name, minio.RemoveBucketOptions{ForceDelete: true})
			if err != nil && minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
				t.Error(err)
			}
		})
	}
	if versioned {
		if err := s.client.EnableVersioning(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	return name
}
