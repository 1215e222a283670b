package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"leat/internal/stage"
	"leat/internal/testenv"
	"leat/internal/testenv/local"
)

// servers is what a fleet runs on, each behind a proxy that can cut its
// connections.
type servers struct {
	database *testenv.DB
	kafka    *testenv.KafkaBroker
	elastic  *testenv.Elasticsearch8
	milvus   *testenv.MilvusServer
	objects  *testenv.ObjectStore
	proxies  map[string]*toxiproxy.Proxy // by server
}

// startServers starts servers of the test's own, Milvus with further settings.
func startServers(t *testing.T, milvus ...string) *servers {
	s := &servers{proxies: map[string]*toxiproxy.Proxy{}}
	s.database = testenv.MySQL(t, testenv.Own())
	s.objects = testenv.MinIO(t, testenv.Own())
	s.elastic = testenv.Elasticsearch(t, testenv.Own())
	s.milvus = testenv.Milvus(t, testenv.Own(), testenv.Flags(append(milvus, "proxy.timeTickInterval=50", "rootCoord.dmlChannelNum=16")...))
	// A client of Kafka goes where the broker says that it is: there the proxy
	// has to be.
	port, err := local.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	s.kafka = testenv.Kafka(t, testenv.Flags("advertised.listeners=PLAINTEXT://"+at))
	control := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	for name, server := range map[string]struct{ listen, upstream string }{
		"kafka":         {at, s.kafka.Addr()},
		"database":      {"127.0.0.1:0", s.database.Addr()},
		"objects":       {"127.0.0.1:0", s.objects.Addr()},
		"elasticsearch": {"127.0.0.1:0", s.elastic.Addr()},
		"milvus":        {"127.0.0.1:0", s.milvus.Addr()},
	} {
		p := toxiproxy.NewProxy(control, name, server.listen, server.upstream)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		s.proxies[name] = p
	}
	return s
}

// config is the servers' part of pipeline.yaml.
func (s *servers) config() string {
	return fmt.Sprintf("kafka: {brokers: [%q]}\nelasticsearch: {urls: [%q], replicas: 0}\nmilvus: {address: %q}\n",
		s.proxies["kafka"].Listen, "http://"+s.proxies["elasticsearch"].Listen, s.proxies["milvus"].Listen)
}

// server is what can happen to each.
type server interface {
	Kill(testing.TB)
	Start(testing.TB)
	Pause(testing.TB)
	Resume(testing.TB)
}

// each gives the servers by name.
func (s *servers) each() map[string]server {
	return map[string]server{
		"database": s.database, "kafka": s.kafka, "elasticsearch": s.elastic, "milvus": s.milvus, "objects": s.objects,
	}
}

// cut breaks a server's connections and refuses new ones for a while.
func (s *servers) cut(t *testing.T, name string, pause time.Duration) {
	t.Helper()
	p := s.proxies[name]
	at := p.Listen
	p.Stop()
	time.Sleep(pause)
	p.Listen = at // the port it had, not a free one
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

// fleet is a pipeline whose stages are processes of their own.
type fleet struct {
	*pipeline
	stages map[string][]*local.Process
}

// newFleet starts so many processes of each stage.
func newFleet(p *pipeline, processes map[string]int) *fleet {
	p.t.Helper()
	f := &fleet{pipeline: p, stages: map[string][]*local.Process{}}
	for _, name := range stage.Names {
		for range processes[name] {
			f.add(name)
		}
	}
	return f
}

// add starts one more process of a stage.
func (f *fleet) add(name string) {
	f.t.Helper()
	n := len(f.stages[name])
	m, err := local.Start(context.Background(), local.Spec{
		Name:    fmt.Sprintf("leat run --stages %s (%d)", name, n),
		Command: func() *exec.Cmd { return f.command("run", "--stages", name) },
		Ready:   func(context.Context) error { return nil },
		Log:     filepath.Join(f.dir, fmt.Sprintf("%s-%d.log", name, n)),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.stages[name], f.members = append(f.stages[name], m), append(f.members, m)
	f.t.Cleanup(func() {
		if err := m.Kill(); err != nil {
			f.t.Error(err)
		}
		if f.t.Failed() {
			f.t.Logf("the end of the log of %s:\n%s", m.Name(), m.LogTail(3000))
		}
	})
}

// restart kills a process with SIGKILL and starts it again.
func (f *fleet) restart(m *local.Process) {
	f.t.Helper()
	if err := m.Kill(); err != nil {
		f.t.Fatal(err)
	}
	if err := m.Start(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}
