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
	var m *local.Milvus
	start := func(ctx context.Context, dir string) (*local.Process, error) {
		in, err := local.FindMilvus()
		if err != nil {
			return nil, err
		}
		if m, err = local.StartMilvus(ctx, in, dir, o.flags...); err != nil {
			return nil, err
		}
		return m.Process, nil
	}
	if !o.own {
		share(t, env, "milvus", start, func() string { return m.Addr() })
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
	p := launch(t, "milvus", start)
	return &MilvusServer{Server{m.Addr(), p}}
}
