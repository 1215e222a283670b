package testenv

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"leat/internal/testenv/local"
)

// MilvusServer is a Milvus server for a test.
type MilvusServer struct{ Server }

// Milvus starts a Milvus standalone server that ends with the test, without
// authentication; Flags are settings of milvus.yaml, such as
// "proxy.timeTickInterval=100". Where LEAT_TEST_MILVUS is set (host:port) and
// no option asks otherwise, the test gets that server. See [Shared], too.
func Milvus(t testing.TB, opts ...Option) *MilvusServer {
	t.Helper()
	needs(t, "Milvus")
	o := chosen(opts)
	const env = "LEAT_TEST_MILVUS"
	if !o.own {
		share(t, env, "milvus", func(ctx context.Context, dir string) (func() error, string, error) {
			m, err := startMilvus(ctx, dir)
			if err != nil {
				return nil, "", err
			}
			return m.Kill, m.Addr(), nil
		})
	}
	if at := os.Getenv(env); at != "" && !o.own {
		d := net.Dialer{Timeout: 10 * time.Second}
		conn, err := d.DialContext(t.Context(), "tcp", at)
		if err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		conn.Close()
		return &MilvusServer{Server{addr: at}}
	}
	var m *local.Milvus
	p := launch(t, "milvus", func(ctx context.Context, dir string) (_ *local.Process, err error) {
		if m, err = startMilvus(ctx, dir, o.flags...); err != nil {
			return nil, err
		}
		return m.Process, nil
	})
	return &MilvusServer{Server{m.Addr(), p}}
}

func startMilvus(ctx context.Context, dir string, flags ...string) (*local.Milvus, error) {
	in, err := local.FindMilvus()
	if err != nil {
		return nil, err
	}
	return local.StartMilvus(ctx, in, dir, flags...)
}
