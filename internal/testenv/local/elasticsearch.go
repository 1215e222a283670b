package local

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// FindElasticsearch finds the server that scripts/servers put into the cache
// and returns its folder.
func FindElasticsearch() (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "servers", "elasticsearch")
	if _, err := os.Stat(filepath.Join(home, "manifest.txt")); err != nil {
		return "", fmt.Errorf("elasticsearch %w in %s", ErrNotInstalled, home)
	}
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("elasticsearch %w: java is not on the PATH", ErrNotInstalled)
	}
	return home, nil
}

// Elasticsearch is a server of this process: a cluster of one node.
type Elasticsearch struct {
	*Process
	// User and Password may do everything, where the server was started with
	// xpack.security.enabled=true; else it asks for none.
	User, Password string

	home, dir string
	uid       int // it runs as, 0: as this process
	port      int
	settings  map[string]string

	mu    sync.Mutex
	stdin []*os.File // both ends: the server ends when it is closed, as it is with this process
}

const (
	elasticsearchHeap = "512m"
	nobody            = 65534
)

// StartElasticsearch runs a new, empty server whose files lie in dir, with
// settings of its elasticsearch.yml ("key=value") above its own.
func StartElasticsearch(ctx context.Context, installation, dir string, settings ...string) (*Elasticsearch, error) {
	e := &Elasticsearch{home: filepath.Join(dir, "home"), dir: dir}
	if os.Getuid() == 0 { // which it refuses to run as
		e.uid = nobody
		if err := passable(dir); err != nil {
			return nil, err
		}
	}
	e.settings = map[string]string{
		"path.home": e.home, "path.data": e.path("data"), "path.logs": e.path("logs"),
		"cluster.name": "leat", "node.name": "leat", "discovery.type": "single-node",
		"http.host": "127.0.0.1", "transport.host": "127.0.0.1", "transport.port": "0",
		// A full disk of the machine is not what a test is about, unless it says so.
		"cluster.routing.allocation.disk.threshold_enabled": "false",
	}
	for _, s := range settings {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("elasticsearch: %q is not key=value", s)
		}
		e.settings[key] = value
	}
	if err := e.install(installation); err != nil {
		return nil, fmt.Errorf("elasticsearch: %w", err)
	}
	for try := 1; ; try++ {
		err := e.startOn(ctx)
		// Someone may have taken the port since it was found free.
		if err == nil {
			return e, nil
		}
		if try == 3 || !strings.Contains(err.Error(), "BindHttpException") {
			return nil, errors.Join(err, e.Close())
		}
	}
}

func (e *Elasticsearch) path(name string) string { return filepath.Join(e.dir, name) }

// install makes the server's folders, with hard links to the installation where
// the file system allows: the cache may be in a folder that only root may pass.
func (e *Elasticsearch) install(from string) error {
	modules := []string{"analysis-common", "lang-painless", "reindex", "rest-root", "transport-netty4"}
	secured := e.settings["xpack.security.enabled"] == "true"
	if secured {
		modules = append(modules, "x-pack-core", "x-pack-security")
	} else {
		delete(e.settings, "xpack.security.enabled") // a setting it does not know
	}
	folders := []string{"lib", "plugins"}
	for _, m := range modules {
		folders = append(folders, filepath.Join("modules", m))
	}
	for _, folder := range folders {
		if err := linkTree(filepath.Join(from, folder), filepath.Join(e.home, folder)); err != nil {
			return err
		}
	}
	for _, name := range []string{"config", "data", "logs", "tmp"} {
		if err := os.Mkdir(e.path(name), 0o755); err != nil {
			return err
		}
	}
	config := map[string]string{"log4j2.properties": logging, "elasticsearch.yml": ""}
	if secured {
		e.User, e.Password = "root", rand.Text()
		hash, err := hashed(e.Password)
		if err != nil {
			return err
		}
		config["users"] = e.User + ":" + hash + "\n"
		config["users_roles"] = "superuser:" + e.User + "\n"
	}
	for name, content := range config {
		if err := os.WriteFile(filepath.Join(e.path("config"), name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if e.uid == 0 {
		return nil
	}
	for _, name := range []string{"config", "data", "logs", "tmp"} {
		if err := os.Chown(e.path(name), e.uid, e.uid); err != nil {
			return err
		}
	}
	return nil
}

const logging = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}]%marker %m%consoleException%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
`

// hashed is a password as the server's file of users holds it.
func hashed(password string) (string, error) {
	const rounds = 1000
	salt := make([]byte, 32)
	rand.Read(salt)
	key, err := pbkdf2.Key(sha512.New, password, salt, rounds, 32)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("{PBKDF2}%d$%s$%s", rounds, b64(salt), b64(key)), nil
}

// linkTree makes hard links to all files below from, or copies where it cannot.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if os.Link(path, target) == nil {
			return nil
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// passable makes sure that other users may pass the folders above dir.
func passable(dir string) error {
	parent := filepath.Dir(dir)
	if err := os.Chmod(parent, 0o711); err != nil { // NewDir's own
		return err
	}
	for p := parent; ; p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err != nil {
			return err
		}
		if fi.Mode()&0o001 == 0 {
			return fmt.Errorf("elasticsearch does not run as root, and no other user may pass %s: set TMPDIR to a folder that all may, such as /tmp", p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

func (e *Elasticsearch) startOn(ctx context.Context) (err error) {
	if e.port, err = FreePort(); err != nil {
		return err
	}
	e.settings["http.port"] = strconv.Itoa(e.port)
	bridge, err := filepath.Glob(filepath.Join(e.home, "lib/entitlement-bridge/*.jar"))
	if err != nil || len(bridge) != 1 {
		return fmt.Errorf("elasticsearch: lib/entitlement-bridge holds %d jars, not 1", len(bridge))
	}
	// What bin/elasticsearch would run, without its launcher, which takes some
	// seconds and as much memory again.
	args := []string{
		"-Xms" + elasticsearchHeap, "-Xmx" + elasticsearchHeap, "-XX:+UseSerialGC", "-Xss1m", "-XX:+ExitOnOutOfMemoryError",
		"-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		"-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-Djna.nosys=true",
		"-Dio.netty.noUnsafe=true", "-Dio.netty.noKeySetOptimization=true", "-Dio.netty.recycler.maxCapacityPerThread=0",
		"-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true", "-Dlog4j2.formatMsgNoLookups=true",
		"-Djava.locale.providers=SPI,COMPAT", "-Des.path.home=" + e.home, "-Des.distribution.type=zip",
		"-Dorg.apache.lucene.vectorization.upperJavaFeatureVersion=17", "-Djava.io.tmpdir=" + e.path("tmp"),
		"-XX:+EnableDynamicAgentLoading", "-Djdk.attach.allowAttachSelf=true",
		"--patch-module=java.base=" + bridge[0],
		"--add-exports=java.base/org.elasticsearch.entitlement.bridge=org.elasticsearch.entitlement,java.logging,java.net.http,java.naming,jdk.net,jdk.zipfs,jdk.management.agent",
		"--module-path=" + filepath.Join(e.home, "lib"), "--add-modules=jdk.net", "--add-modules=jdk.management.agent",
		"--add-modules=ALL-MODULE-PATH",
		"-m", "org.elasticsearch.server/org.elasticsearch.bootstrap.Elasticsearch",
	}
	e.Process, err = Start(ctx, Spec{
		Name: "elasticsearch",
		Command: func() *exec.Cmd {
			cmd := exec.Command("java", args...)
			cmd.Dir = e.path("tmp")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "JAVA_HOME=" + os.Getenv("JAVA_HOME"), "LANG=C.UTF-8",
				"LIBFFI_TMPDIR=" + e.path("tmp"), "HOME=" + e.path("tmp")}
			cmd.SysProcAttr = ChildAttr()
			if e.uid != 0 {
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(e.uid), Gid: uint32(e.uid)}
			}
			cmd.Stdin = e.input()
			return cmd
		},
		Ready: e.ready,
		Log:   e.path("server.log"),
	})
	return err
}

// input is the standard input of the next start: the server's settings, then
// nothing until this process ends. Without one the server ends, which is seen.
func (e *Elasticsearch) input() *os.File {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closeInput()
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	e.stdin = []*os.File{r, w}
	_, _ = w.Write(e.serverArgs()) // some hundred bytes, which a pipe holds
	return r
}

func (e *Elasticsearch) closeInput() {
	for _, f := range e.stdin {
		f.Close()
	}
	e.stdin = nil
}

// serverArgs is what org.elasticsearch.bootstrap.ServerArgs reads (8.19).
func (e *Elasticsearch) serverArgs() []byte {
	var b bytes.Buffer
	str := func(s string) { // ASCII only
		b.Write(binary.AppendUvarint(nil, uint64(len(s))))
		b.WriteString(s)
	}
	b.Write([]byte{0, 0, 0}) // not a daemon, not quiet, no file for the process id
	str("org.elasticsearch.common.settings.KeyStoreWrapper")
	// Its format is 7, it has no password and no data, holds 0 entries and is not closed.
	b.Write([]byte{0, 0, 0, 7, 0, 0, 0, 0})
	b.Write(binary.AppendUvarint(nil, uint64(len(e.settings))))
	for _, k := range slices.Sorted(maps.Keys(e.settings)) {
		str(k)
		b.WriteByte(0) // the value is a string
		str(e.settings[k])
	}
	str(e.path("config"))
	str(e.path("logs"))
	return b.Bytes()
}

func (e *Elasticsearch) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+"/_cluster/health?wait_for_status=yellow&timeout=5s", nil)
	if err != nil {
		return err
	}
	if e.User != "" {
		req.SetBasicAuth(e.User, e.Password)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("%s: %s", res.Status, b)
	}
	return nil
}

// Addr is the server's host:port.
func (e *Elasticsearch) Addr() string { return loopback(e.port) }

// URL is where the server answers.
func (e *Elasticsearch) URL() string { return "http://" + e.Addr() }

// Close ends the server.
func (e *Elasticsearch) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.closeInput()
	if e.Process == nil {
		return nil
	}
	return e.Kill()
}
