package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// KafkaInstallation is Apache Kafka on this machine.
type KafkaInstallation struct {
	Version string // such as "4.4.0"
	java    string // path of the program
	javaIs  string // what it says of its version, as a part of a file's name
	lib     string // folder of the jars
}

// FindKafka finds the jars that scripts/servers put into the cache, and Java.
func FindKafka() (*KafkaInstallation, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	prefix := filepath.Join(cache, "servers", "kafka")
	manifest, err := os.ReadFile(filepath.Join(prefix, "manifest.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kafka %w in %s", ErrNotInstalled, prefix)
	}
	if err != nil {
		return nil, err
	}
	in := &KafkaInstallation{lib: filepath.Join(prefix, "lib"), java: "java"}
	if m := regexp.MustCompile(`kafka-server-([0-9.]+)\.jar`).FindSubmatch(manifest); m != nil {
		in.Version = string(m[1])
	}
	if home := os.Getenv("JAVA_HOME"); home != "" {
		in.java = filepath.Join(home, "bin", "java")
	}
	if in.java, err = exec.LookPath(in.java); err != nil {
		return nil, fmt.Errorf("java, which kafka needs, %w (Debian: apt-get install openjdk-17-jre-headless): %w", ErrNotInstalled, err)
	}
	out, err := exec.Command(in.java, "-version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s -version: %w: %s", in.java, err, out)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	in.javaIs = regexp.MustCompile(`[^0-9A-Za-z.]+`).ReplaceAllString(first, "-")
	return in, nil
}

// KafkaListener is one more place where a broker listens, beside the one
// without TLS and passwords that it always has.
type KafkaListener struct {
	Cert, Key string            // PEM files: TLS, with this certificate; empty: none
	ClientCA  string            // PEM file: clients need a certificate of this authority; empty: they need none
	Users     map[string]string // passwords by user, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; nil: no SASL
}

func (l KafkaListener) protocol() string {
	switch {
	case l.Cert != "" && l.Users != nil:
		return "SASL_SSL"
	case l.Cert != "":
		return "SSL"
	case l.Users != nil:
		return "SASL_PLAINTEXT"
	}
	return "PLAINTEXT"
}

// KafkaConfig of a broker.
type KafkaConfig struct {
	Listeners  map[string]KafkaListener // by name: lower-case letters
	Properties []string                 // lines of server.properties, above leat's own
}

// Kafka is a Kafka cluster of one broker of this process.
type Kafka struct {
	*Process
	Installation *KafkaInstallation
	dir          string
	cfg          KafkaConfig
	ports        map[string]int // by listener; "plaintext" and "controller" are its own
}

const kafkaProperties = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%d
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%s
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
# A restart after SIGKILL waits until the session of the dead broker is over.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
`

const kafkaLog = `status=error
appender.c.type=Console
appender.c.name=c
appender.c.target=SYSTEM_ERR
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.c.ref=c
`

// StartKafka runs a new, empty broker whose files lie in dir.
func StartKafka(ctx context.Context, in *KafkaInstallation, dir string, cfg KafkaConfig) (*Kafka, error) {
	template, archive, err := in.template(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(template)); err != nil {
		return nil, fmt.Errorf("copy %s: %w", template, err)
	}
	for try := 1; ; try++ {
		k := &Kafka{Installation: in, dir: dir, cfg: cfg}
		err := k.start(ctx, "-XX:SharedArchiveFile="+archive)
		// Someone may have taken a port since it was found free.
		if err == nil || try == 3 || !strings.Contains(err.Error(), "in use") {
			return k, err
		}
	}
}

func (k *Kafka) start(ctx context.Context, flags ...string) error {
	if err := k.configure(); err != nil {
		return err
	}
	command := func() *exec.Cmd {
		return k.Installation.command(k.dir, flags, "kafka.Kafka", filepath.Join(k.dir, "server.properties"))
	}
	var err error
	k.Process, err = Start(ctx, Spec{
		Name: "kafka " + k.Installation.Version, Command: command, Ready: k.ready, Log: filepath.Join(k.dir, "server.log"),
	})
	if err == nil {
		if err = k.createUsers(ctx); err != nil {
			err = errors.Join(err, k.Kill())
		}
	}
	return err
}

// command runs a class of Kafka's on the configuration in dir.
func (in *KafkaInstallation) command(dir string, flags []string, args ...string) *exec.Cmd {
	// Small and soon started, not fast: no second compiler, no parallel collector.
	all := []string{"-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"}
	all = append(all, flags...)
	all = append(all, "-Dlog4j2.configurationFile="+filepath.Join(dir, "log4j2.properties"), "-cp", filepath.Join(in.lib, "*"))
	return exec.Command(in.java, append(all, args...)...)
}

// configure writes the broker's configuration, with free ports.
func (k *Kafka) configure() error {
	k.ports = map[string]int{}
	listeners := []string{"controller", "plaintext"}
	for name := range k.cfg.Listeners {
		listeners = append(listeners, name)
	}
	var at, protocols []string
	for _, name := range listeners {
		port, err := FreePort()
		if err != nil {
			return err
		}
		k.ports[name] = port
		at = append(at, strings.ToUpper(name)+"://"+loopback(port))
		protocols = append(protocols, strings.ToUpper(name)+":"+k.cfg.Listeners[name].protocol())
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, kafkaProperties, k.ports["controller"], filepath.Join(k.dir, "data"))
	fmt.Fprintf(&b, "listeners=%s\nadvertised.listeners=%s\n", strings.Join(at, ","), strings.Join(at[1:], ","))
	fmt.Fprintf(&b, "listener.security.protocol.map=%s\n", strings.Join(protocols, ","))
	for name, l := range k.cfg.Listeners {
		if err := k.secure(&b, name, l); err != nil {
			return err
		}
	}
	for _, line := range k.cfg.Properties {
		fmt.Fprintln(&b, line)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(k.dir, "server.properties"), b.Bytes(), 0o600),
		os.WriteFile(filepath.Join(k.dir, "log4j2.properties"), []byte(kafkaLog), 0o644))
}

// template returns a formatted data directory to copy, and an archive of the
// classes that a broker loads, both made once for each version: with them a
// broker starts in a third of the time.
func (in *KafkaInstallation) template(ctx context.Context) (data, archive string, err error) {
	cache, err := Cache()
	if err != nil {
		return "", "", err
	}
	parent := filepath.Join(cache, "servers", "templates")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", "", err
	}
	dir := filepath.Join(parent, fmt.Sprintf("kafka-%s-%s-1", in.Version, in.javaIs))
	return filepath.Join(dir, "data"), filepath.Join(dir, "classes.jsa"), withLock(dir+".lock", func() error {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		making := dir + ".making"
		if err := os.RemoveAll(making); err != nil {
			return err
		}
		if err := in.prepare(ctx, making); err != nil {
			return fmt.Errorf("prepare kafka %s: %w", in.Version, err)
		}
		return os.Rename(making, dir)
	})
}

func (in *KafkaInstallation) prepare(ctx context.Context, dir string) error {
	scratch := filepath.Join(dir, "scratch")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	k := &Kafka{Installation: in, dir: scratch}
	if err := k.configure(); err != nil {
		return err
	}
	format := in.command(scratch, nil, "kafka.tools.StorageTool", "format", "-t", "bGVhdCBvbiBsb29wYmFjaw", "-c", filepath.Join(scratch, "server.properties"))
	if out, err := format.CombinedOutput(); err != nil {
		return fmt.Errorf("format: %w: %s", err, out)
	}
	if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(filepath.Join(scratch, "data"))); err != nil {
		return err
	}
	if err := k.start(ctx, "-XX:ArchiveClassesAtExit="+filepath.Join(dir, "classes.jsa")); err != nil {
		return err
	}
	// A broker without the archive is only slower to start.
	return errors.Join(k.Stop(), os.RemoveAll(scratch))
}

// ready asks the broker for the brokers of its cluster: it is among them once
// it may lead partitions.
func (k *Kafka) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&kafka.Dialer{}).DialContext(ctx, "tcp", k.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	brokers, err := conn.Brokers()
	if err == nil && len(brokers) == 0 {
		err = errors.New("the broker does not lead yet")
	}
	return err
}

// Addr is host:port of the listener without TLS and passwords.
func (k *Kafka) Addr() string { return k.Listener("plaintext") }

// Listener is host:port of a listener.
func (k *Kafka) Listener(name string) string { return loopback(k.ports[name]) }

// Port is the TCP port of Addr.
func (k *Kafka) Port() int { return k.ports["plaintext"] }
