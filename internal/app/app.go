// Package app wires the flow: what pipeline.yaml says becomes sources, stages,
// stores and a bus, in this process. It is the one package that knows all the
// others.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"leat"
	"leat/chunker"
	"leat/embedder"
	"leat/internal/bus"
	"leat/internal/config"
	"leat/internal/stage"
	"leat/sources/folder"
	"leat/sources/mysql"
	"leat/sources/s3"
)

// App is a pipeline as configured. Its methods open what they need.
type App struct {
	cfg *config.Pipeline
	log *slog.Logger
}

// New makes the application of a pipeline.
func New(cfg *config.Pipeline, log *slog.Logger) *App { return &App{cfg: cfg, log: log} }

// topics are those that all generations share.
func (a *App) topics() bus.TopicNames { return bus.Topics(a.cfg.Name, 0) }

// sourcesGroup is the group whose members lead the sources.
func (a *App) sourcesGroup() string { return bus.Groups(a.cfg.Name, 0).Sources }

// flowStage is a stage that consumes: its group reads topic.
type flowStage struct {
	name, group, topic string
	maxRecords         int // of one batch
	maxBytes           int
	mixed              bool          // a batch holds records of all partitions
	every              time.Duration // the least time between two batches in a stream of changes
}

// How soon a batch may follow another, where a network and servers are between
// the stages: each request costs them more than a record does, and what is
// searchable shows no sooner than a store refreshes.
const (
	produceEvery = 30 * time.Millisecond
	clusterEvery = 60 * time.Millisecond
	storeEvery   = 200 * time.Millisecond
)

// flow lists the consuming stages of a generation in the order of the flow.
// Batches for the embedder are small, since a batch is what a live change waits
// for.
func (a *App) flow(generation int) []flowStage {
	topics, groups := bus.Topics(a.cfg.Name, generation), bus.Groups(a.cfg.Name, generation)
	flow := []flowStage{
		{name: stage.Chunker, group: groups.Chunker, topic: topics.Documents, maxRecords: 500, maxBytes: 4 << 20},
		{name: stage.Embedder, group: groups.Embedder, topic: topics.Chunks, maxRecords: 64, maxBytes: 1 << 20},
		{name: stage.TextIndexer, group: groups.TextIndexer, topic: topics.Chunks, maxRecords: 500, maxBytes: 4 << 20, mixed: true},
		{name: stage.VectorIndexer, group: groups.VectorIndexer, topic: topics.Vectors, maxRecords: 500, maxBytes: 4 << 20, mixed: true},
	}
	for i := range flow {
		s := &flow[i]
		switch {
		case a.remote(s.name):
			s.every = storeEvery
		case a.cfg.Kafka != nil:
			s.every = clusterEvery
		}
	}
	return flow
}

func (a *App) brokerDir() string { return filepath.Join(a.cfg.DataDir, "broker") }
func (a *App) cacheDir() string  { return filepath.Join(a.cfg.DataDir, "cache") }
func (a *App) storePath() string { return filepath.Join(a.cfg.DataDir, "index.db") }

func (a *App) dataDirError(err error) error {
	return leat.Hint(fmt.Errorf("data directory: %w", err), "make %s writable, or set data_dir in pipeline.yaml", a.cfg.DataDir)
}

// connection is a client of the broker.
type connection struct {
	*bus.Client
	embedded io.Closer // the embedded broker, or the stay with that of another process; nil: there is a cluster
}

func (c connection) Close() error {
	err := c.Client.Close()
	if c.embedded != nil {
		err = errors.Join(err, c.embedded.Close())
	}
	return err
}

// clientPrefix and the process make the id of this process's client, by which
// `leat status` tells the members of a group from those that are gone.
const clientPrefix = "leat@"

// connect reaches the broker. The embedded one is started where no process
// runs it; own says that this process must be the one that does.
func (a *App) connect(ctx context.Context, own bool) (conn connection, err error) {
	err = a.whileAway(ctx, func() (err error) {
		conn, err = a.connectOnce(ctx, own)
		return err
	})
	return conn, err
}

// embeddedWait is how long the embedded broker of another process may be
// about to start or to end.
const embeddedWait = 5 * time.Second

// whileAway calls f again where the embedded broker is away, since the process
// that ran it has ended: another one runs it soon, or this one does.
func (a *App) whileAway(ctx context.Context, f func() error) error {
	for deadline := time.Now().Add(embeddedWait); ; {
		err := f()
		if a.cfg.Kafka != nil || !bus.IsAway(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (a *App) connectOnce(ctx context.Context, own bool) (connection, error) {
	var conn connection
	var cfg bus.Config
	var err error
	if k := a.cfg.Kafka; k != nil {
		cfg.Brokers = k.Brokers
		if cfg.TLS, err = k.TLS.Load(); err != nil {
			return conn, err
		}
		if k.SASL != nil {
			cfg.SASL = &bus.SASL{Mechanism: k.SASL.Mechanism, User: k.SASL.User, Password: k.SASL.Password}
		}
	} else {
		var addr string
		if addr, conn.embedded, err = a.embeddedBroker(ctx, own); err != nil {
			return conn, err
		}
		cfg.Brokers = []string{addr}
	}
	cfg.ClientID = clientPrefix + stage.Process()
	if conn.Client, err = bus.New(cfg, a.log); err == nil {
		if err = conn.Ping(ctx); err != nil {
			err = errors.Join(err, conn.Client.Close())
		}
	}
	if err != nil && conn.embedded != nil {
		err = errors.Join(err, conn.embedded.Close())
	}
	return conn, err
}

// embeddedBroker finds the embedded broker of another process or, with own or
// where none runs it, starts it here. Another process may be about to start it,
// and a short command such as `leat status` may hold it for a moment, so
// neither trouble is believed before a while.
func (a *App) embeddedBroker(ctx context.Context, own bool) (addr string, _ io.Closer, err error) {
	if err := os.MkdirAll(a.cfg.DataDir, 0o755); err != nil {
		return "", nil, a.dataDirError(err)
	}
	for deadline := time.Now().Add(embeddedWait); ; {
		running, err := false, error(nil)
		if !own {
			var g *bus.Guest
			if g, running, err = bus.JoinEmbedded(a.brokerDir()); running && err == nil {
				return g.Addr, g, nil
			}
		}
		if !running && err == nil {
			var e *bus.Embedded
			if e, err = bus.StartEmbedded(ctx, a.brokerDir(), a.log); err == nil {
				return e.Addr(), e, nil
			}
			if !errors.Is(err, leat.ErrInUse) {
				return "", nil, err
			}
		}
		if time.Now().After(deadline) {
			return "", nil, err
		}
		select {
		case <-ctx.Done():
			return "", nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// retention of chunks and vectors: how long a stage may be away and lose nothing.
const retention = 7 * 24 * time.Hour

// Partitions of the topics. The embedded broker syncs each partition's file on
// its own, so there fewer are faster; on a cluster they bound how many
// processes can share a stage.
const (
	embeddedPartitions = 2
	clusterPartitions  = 12
)

func (a *App) topicSettings() bus.TopicSettings {
	s := bus.TopicSettings{Partitions: embeddedPartitions, Retention: retention, MaxMessageBytes: bus.DefaultMaxMessageBytes}
	if a.cfg.Kafka != nil {
		s.Partitions, s.Replicas = clusterPartitions, a.cfg.Kafka.Replication
	}
	return s
}

// ensureTopics creates the topics that all generations share or reports those
// with settings that would lose data.
func (a *App) ensureTopics(ctx context.Context, c connection) error {
	return c.EnsureTopics(ctx, a.topics().Specs(a.topicSettings())...)
}

// ensureGeneration is the same for the topics of a generation.
func (a *App) ensureGeneration(ctx context.Context, c connection, n int) error {
	return c.EnsureTopics(ctx, bus.Topics(a.cfg.Name, n).GenerationSpecs(a.topicSettings())...)
}

// open connects and makes sure of the topics.
func (a *App) open(ctx context.Context) (conn connection, err error) {
	err = a.whileAway(ctx, func() (err error) {
		if conn, err = a.connectOnce(ctx, false); err != nil {
			return err
		}
		if err := a.ensureTopics(ctx, conn); err != nil {
			return errors.Join(err, conn.Close())
		}
		return nil
	})
	return conn, err
}

// source is a configured source under its full name, such as "mysql:shop".
type source struct {
	name string
	leat.Source
}

func (a *App) source(cfg config.Source) (source, error) {
	s := source{name: cfg.Kind() + ":" + cfg.Name}
	var err error
	switch {
	case cfg.MySQL != nil:
		s.Source, err = mysql.New(cfg.Name, *cfg.MySQL, a.log)
	case cfg.Folder != nil:
		s.Source, err = folder.New(cfg.Name, *cfg.Folder, a.log)
	case cfg.S3 != nil:
		s.Source, err = s3.New(cfg.Name, *cfg.S3, a.log)
	}
	if err != nil {
		return s, fmt.Errorf("source %s: %w", s.name, err)
	}
	return s, nil
}

func (a *App) sources() ([]source, error) {
	var all []source
	for _, cfg := range a.cfg.Sources {
		s, err := a.source(cfg)
		if err != nil {
			return nil, errors.Join(err, closeAll(all))
		}
		all = append(all, s)
	}
	return all, nil
}

func closeAll(sources []source) error {
	var err error
	for _, s := range sources {
		err = errors.Join(err, s.Close())
	}
	return err
}

// model opens pipeline.yaml's embedder and the tokenizer that measures for it.
func (a *App) model() (leat.Embedder, leat.Tokenizer, error) {
	return embedder.New(a.cfg.Embedder, a.cacheDir(), a.log)
}

// Embedder opens the embedding model.
func (a *App) Embedder() (leat.Embedder, error) {
	model, _, err := a.model()
	return model, err
}

// Chunker opens the chunker; close what it measures with afterwards.
func (a *App) Chunker() (*chunker.Chunker, func() error, error) {
	model, tok, err := a.model()
	if err != nil {
		return nil, nil, err
	}
	c, err := chunker.New(a.cfg.Chunker, tok, model.Model().MaxTokens)
	if err != nil {
		return nil, nil, errors.Join(err, model.Close())
	}
	return c, model.Close, nil
}

// Describe says in a few words what the pipeline reads.
func (a *App) Describe() string {
	names := make([]string, len(a.cfg.Sources))
	for i, s := range a.cfg.Sources {
		names[i] = s.Kind() + ":" + s.Name
	}
	return strings.Join(names, ", ")
}
