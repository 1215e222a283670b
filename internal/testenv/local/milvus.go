package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// MilvusInstallation is a Milvus standalone server's program on this machine.
type MilvusInstallation struct {
	Version string // such as "2.3.5"
	root    string
}

// FindMilvus finds the server that scripts/servers put into the cache.
func FindMilvus() (*MilvusInstallation, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(cache, "servers", "milvus")
	manifest, err := os.ReadFile(filepath.Join(root, "manifest.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("milvus %w in %s", ErrNotInstalled, root)
	}
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(string(manifest), " ")
	return &MilvusInstallation{Version: strings.TrimPrefix(name, "milvus=="), root: root}, nil
}

// Milvus is a standalone server of this process, with etcd and a message queue
// inside, without authentication. It listens on all interfaces, which it
// cannot be kept from; etcd inside it on loopback.
type Milvus struct {
	*Process
	Installation *MilvusInstallation
	ports        map[string]int
}

// What needs a port of its own. They stay the same over restarts: a component
// that comes back elsewhere is taken for another one.
var milvusPorts = []string{
	"proxy", "metrics", "proxy_internal", "root_coord", "query_coord", "query_node",
	"index_node", "data_coord", "data_node", "etcd_client", "etcd_peer",
}

// StartMilvus runs a new, empty server whose files lie in dir, with settings
// such as "proxy.timeTickInterval=100", keys as in milvus.yaml, above its own.
func StartMilvus(ctx context.Context, in *MilvusInstallation, dir string, settings ...string) (*Milvus, error) {
	for try := 1; ; try++ {
		m, err := in.start(ctx, dir, settings)
		// Someone may have taken a port since it was found free.
		if err == nil || try == 3 || !strings.Contains(err.Error(), "address already in use") {
			return m, err
		}
	}
}

func (in *MilvusInstallation) start(ctx context.Context, dir string, settings []string) (*Milvus, error) {
	m := &Milvus{Installation: in}
	var err error
	if m.ports, err = freePorts(milvusPorts); err != nil {
		return nil, err
	}
	if err := m.writeConfig(dir); err != nil {
		return nil, err
	}
	// The environment is read above the file. Nothing of this process's own is
	// handed on: any variable, LOG_LEVEL or PROXY_PORT, would be a setting.
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LD_LIBRARY_PATH=" + filepath.Join(in.root, "bin"),
		"DEPLOY_MODE=STANDALONE", fmt.Sprintf("METRICS_PORT=%d", m.ports["metrics"]), "MILVUS_RUN_DIR=" + filepath.Join(dir, "run"),
		"etcd.use.embed=true", "etcd.config.path=" + filepath.Join(dir, "configs", "etcd.yaml"),
		"etcd.endpoints=" + loopback(m.ports["etcd_client"]),
		fmt.Sprintf("proxy.internalPort=%d", m.ports["proxy_internal"]),
		// A strongly consistent read waits for the next tick: 20 ms with this, not
		// 200. It costs a third of a core where nothing happens; with 50, a tenth.
		"proxy.timeTickInterval=10",
		// Each channel has ticks of its own: 16 cost a quarter of a core more than 4.
		// Collections that share one can lose rows when the server is killed. They
		// are given out in turn, one to each call that creates a collection, also
		// where another process has just created it: 8 are enough for two
		// generations of two collections that two processes open at once.
		"rootCoord.dmlChannelNum=8",
		"queryCoord.checkChannelInterval=50", "queryCoord.checkSegmentInterval=50", "queryCoord.distPullInterval=50",
		// After SIGKILL a start waits so many seconds, until the killed server's
		// sessions have expired. A server that was paused for longer ends when
		// it goes on.
		"common.session.ttl=10",
	}
	for component, port := range map[string]string{
		"proxy": "proxy", "rootCoord": "root_coord", "queryCoord": "query_coord", "queryNode": "query_node",
		"indexNode": "index_node", "dataCoord": "data_coord", "dataNode": "data_node",
	} {
		env = append(env, component+".ip=127.0.0.1", fmt.Sprintf("%s.port=%d", component, m.ports[port]))
	}
	m.Process, err = Start(ctx, Spec{
		Name: "milvus " + in.Version,
		Command: func() *exec.Cmd {
			// The alias gives it a lock file of its own.
			cmd := exec.Command(filepath.Join(in.root, "bin", "milvus"), "run", "standalone", fmt.Sprintf("-alias=p%d", m.ports["proxy"]))
			cmd.Dir, cmd.Env = dir, append(env, settings...)
			return cmd
		},
		Ready: m.healthy,
		Quit:  m.endSessions,
		Log:   filepath.Join(dir, "server.log"),
	})
	return m, err
}

// hole is a place to fill in of the shipped configuration; with its default,
// if it has one: {{ name(type): default }}.
var hole = regexp.MustCompile(`\{\{ *([a-z_]+)(?:\([a-z]+\))? *(?:: *([^} ]*))? *\}\}`)

// writeConfig fills the shipped configuration in; what differs from it is in
// the environment.
func (m *Milvus) writeConfig(dir string) error {
	template, err := os.ReadFile(filepath.Join(m.Installation.root, "config.yaml.template"))
	if err != nil {
		return err
	}
	storage := map[string]string{
		"etcd_data_dir": filepath.Join(dir, "storage", "etcd"), "local_storage_dir": filepath.Join(dir, "storage", "data"),
		"rocksmq_data_dir": filepath.Join(dir, "storage", "rocksmq"), "system_log_path": "",
	}
	config := hole.ReplaceAllFunc(template, func(b []byte) []byte {
		parts := hole.FindSubmatch(b)
		if path, ok := storage[string(parts[1])]; ok {
			return []byte(path)
		}
		return parts[2]
	})
	glog, err := os.ReadFile(filepath.Join(m.Installation.root, "glog.conf"))
	if err != nil {
		return err
	}
	client, peer := loopback(m.ports["etcd_client"]), loopback(m.ports["etcd_peer"])
	// etcd takes its ports from a file of its own only. It elects itself after
	// election-timeout, at every start.
	etcd := fmt.Sprintf(`name: default
listen-client-urls: http://%[1]s
advertise-client-urls: http://%[1]s
listen-peer-urls: http://%[2]s
initial-advertise-peer-urls: http://%[2]s
initial-cluster: default=http://%[2]s
heartbeat-interval: 20
election-timeout: 200
logger: zap
log-level: warn
log-outputs: [stderr]
`, client, peer)
	configs, data := filepath.Join(dir, "configs"), filepath.Join(dir, "storage")
	return errors.Join(
		os.RemoveAll(data), // of a try on other ports
		os.MkdirAll(configs, 0o755), os.MkdirAll(data, 0o755),
		os.WriteFile(filepath.Join(configs, "milvus.yaml"), config, 0o644),
		os.WriteFile(filepath.Join(configs, "glog.conf"), glog, 0o644),
		os.WriteFile(filepath.Join(configs, "etcd.yaml"), []byte(etcd), 0o644))
}

// Addr is the server's host:port.
func (m *Milvus) Addr() string { return loopback(m.ports["proxy"]) }

func (m *Milvus) healthy(ctx context.Context) error {
	body, err := milvusCall(ctx, http.MethodGet, m.ports["metrics"], "/healthz", nil)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(body, "OK") {
		return fmt.Errorf("/healthz says %q", body)
	}
	// It may be well before it listens.
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", m.Addr())
	if err != nil {
		return err
	}
	return conn.Close()
}

// endSessions takes the components' sessions out of etcd. The server exits by
// itself once it sees them gone, so all of them go in one transaction: the
// next start need not wait until they expire. SIGTERM hangs on a server that
// was used. What was acknowledged is in its log.
func (m *Milvus) endSessions(ctx context.Context) error {
	const sessions = "by-dev/meta/session"
	remove := func(from, to string) map[string]any {
		return map[string]any{"requestDeleteRange": map[string][]byte{"key": []byte(from), "range_end": []byte(to)}}
	}
	// All but session/id, the counter of their numbers.
	tx, err := json.Marshal(map[string]any{"success": []any{remove(sessions+"/", sessions+"/id"), remove(sessions+"/id0", sessions+"0")}})
	if err != nil {
		return err
	}
	_, err = milvusCall(ctx, http.MethodPost, m.ports["etcd_client"], "/v3/kv/txn", tx)
	return err
}

func milvusCall(ctx context.Context, method string, port int, path string, body []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+loopback(port)+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Close = true // no connection outlives the call
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s: %s", path, resp.Status, b)
	}
	return string(b), err
}

// freePorts finds a free TCP port for each name, on all interfaces and below
// those that the kernel gives to outgoing connections: one of those could take
// a server's port while it is down.
func freePorts(names []string) (map[string]int, error) {
	var err error
	for range 100 {
		base := 20000 + rand.IntN(12000-len(names))
		ports := map[string]int{}
		for i, name := range names {
			var l net.Listener
			if l, err = net.Listen("tcp", fmt.Sprintf(":%d", base+i)); err != nil {
				break
			}
			l.Close()
			ports[name] = base + i
		}
		if len(ports) == len(names) {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports: %w", len(names), err)
}
