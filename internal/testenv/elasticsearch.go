package testenv

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"testing"

	"leat/internal/testenv/local"
)

// Elasticsearch8 is an Elasticsearch server for a test.
type Elasticsearch8 struct {
	Server
	url            string
	User, Password string // may do everything; "": the server asks for none
}

// Elasticsearch starts an Elasticsearch server that ends with the test: one
// node with the plugin smartcn that asks for no password. Flags are settings
// ("key=value"); xpack.security.enabled=true makes it ask for passwords. Where
// LEAT_TEST_ELASTICSEARCH is set (http://[user:password@]host:port) and no
// option asks otherwise, the test gets that server. See [Shared], too.
func Elasticsearch(t testing.TB, opts ...Option) *Elasticsearch8 {
	t.Helper()
	needs(t, "Elasticsearch")
	o := chosen(opts)
	const env = "LEAT_TEST_ELASTICSEARCH"
	var own *local.Elasticsearch
	start := func(ctx context.Context, dir string) (*local.Process, error) {
		in, err := local.FindElasticsearch()
		if err != nil {
			return nil, err
		}
		if own, err = local.StartElasticsearch(ctx, in, dir, o.flags...); err != nil {
			return nil, err
		}
		return own.Process, nil
	}
	if !o.own {
		share(t, env, "elasticsearch", start, func() string { return own.URL() })
	}
	if at := os.Getenv(env); at != "" && !o.own {
		u, err := url.Parse(at)
		if err != nil || u.Host == "" {
			t.Fatalf("%s: %q is not http://host:port", env, at)
		}
		e := &Elasticsearch8{Server: Server{addr: u.Host}, User: u.User.Username()}
		e.Password, _ = u.User.Password()
		u.User = nil
		e.url = u.String()
		return e
	}
	p := launch(t, "elasticsearch", start)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Elasticsearch8{Server{own.Addr(), p}, own.URL(), own.User, own.Password}
}

// URL is where the server answers, without user and password.
func (e *Elasticsearch8) URL() string { return e.url }
