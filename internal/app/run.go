package app

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
	"leat/chunker"
	"leat/internal/bus"
	"leat/internal/retry"
	"leat/internal/stage"
)

// RunOptions of Run.
type RunOptions struct {
	Stages []string // of stage.Names; empty: all
	Once   bool     // catch up with every source, drain every stage and return
	// Ready is called once everything is open and consuming begins.
	Ready func()
	// Watch is called about once a second.
	Watch func(Snapshot)
}

// Snapshot is what a running process shows of itself.
type Snapshot struct {
	States  map[string]stage.State
	Backlog map[string]int64 // records to consume, by stage of this process
}

// Run runs stages until ctx ends or, with Once, until every change made at the
// sources before the call is in the index or in deadletters.
func (a *App) Run(ctx context.Context, o RunOptions) (err error) {
	for _, name := range o.Stages {
		if !slices.Contains(stage.Names, name) {
			return leat.Hint(fmt.Errorf("unknown stage %q", name), "the stages are %v", stage.Names)
		}
	}
	p := process{App: a, options: o}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.open(ctx); err != nil {
		if ctx.Err() != nil { // told to end while it waited
			return nil
		}
		return err
	}
	if o.Ready != nil {
		o.Ready()
	}
	return p.run(ctx)
}

// process is one run and what it holds open.
type process struct {
	*App
	options  RunOptions
	conn     connection
	producer *bus.Producer
	dead     *stage.DeadLetters
	health   *stage.Health
	sources  []source
	stores   *stores
	prepare  map[string]prepare // by stage
	closers  []func() error     // closed last to first
}

// handler is what a stage does with a batch of records.
type handler func(context.Context, []bus.Record) error

// prepare opens what a stage needs of a store.
type prepare func(context.Context) (handler, error)

func (p *process) close() error {
	var err error
	for _, c := range slices.Backward(p.closers) {
		err = errors.Join(err, c())
	}
	return err
}

func (p *process) has(name string) bool {
	return len(p.options.Stages) == 0 || slices.Contains(p.options.Stages, name)
}

// open opens, in the order of the flow, what the stages of this process need.
func (p *process) open(ctx context.Context) (err error) {
	err = retry.Do(ctx, func() (err error) {
		if p.conn, err = p.connect(ctx, true); p.options.Once || !bus.IsAway(err) {
			err = leat.Permanent(err)
		}
		return err
	}, func(err error) {
		p.log.Warn("waiting for Kafka", "error", err, "hint", leat.HintOf(err))
	})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, p.conn.Close)
	if err := p.ensureTopics(ctx, p.conn); err != nil {
		return err
	}
	var producer bus.ProducerConfig
	if p.cfg.Kafka != nil {
		producer.Every = produceEvery
	}
	p.producer = p.conn.NewProducer(producer)
	p.closers = append(p.closers, p.producer.Close)
	p.dead = &stage.DeadLetters{Topic: p.topics.DeadLetters, Out: p.producer, Log: p.log}
	p.health = &stage.Health{Topic: p.topics.Positions, Out: p.producer, Log: p.log}

	if p.sources, err = p.App.sources(); err != nil {
		return err
	}
	p.closers = append(p.closers, func() error { return closeAll(p.sources) })

	model, tokenizer, err := p.model()
	if err != nil {
		return err
	}
	p.closers = append(p.closers, model.Close)
	chunks, err := chunker.New(p.cfg.Chunker, tokenizer, model.Model().MaxTokens)
	if err != nil {
		return err
	}
	p.stores = &stores{app: p.App, write: true}
	p.closers = append(p.closers, p.stores.Close)

	openers := make(map[string]leat.Opener, len(p.sources))
	for _, s := range p.sources {
		openers[s.name] = s
	}
	cut := stage.Chunks{Common: p.common(stage.Chunker), Chunker: chunks, Openers: openers, Topic: p.topics.Chunks}
	embed := stage.Vectors{Common: p.common(stage.Embedder), Model: model, Topic: p.topics.Vectors}
	p.prepare = map[string]prepare{
		stage.Chunker:  func(context.Context) (handler, error) { return cut.Handle, nil },
		stage.Embedder: func(context.Context) (handler, error) { return embed.Handle, nil },
		stage.TextIndexer: func(ctx context.Context) (handler, error) {
			text, err := p.stores.Text(ctx)
			index := stage.Index{Common: p.common(stage.TextIndexer), Sink: text}
			return index.Handle, err
		},
		stage.VectorIndexer: func(ctx context.Context) (handler, error) {
			vectors, err := p.stores.Vectors(ctx, model.Model())
			index := stage.Index{Common: p.common(stage.VectorIndexer), Sink: vectors}
			return index.Handle, err
		},
	}
	return p.fits(ctx)
}

// fits refuses to start on a store that needs an operator: a file that cannot
// be opened, an index that holds what does not fit. A server that cannot be
// reached may heal, so its stage waits for it while the others run.
func (p *process) fits(ctx context.Context) error {
	for _, s := range p.flow() {
		if !p.has(s.name) {
			continue
		}
		if _, err := p.prepare[s.name](ctx); err != nil && (!p.remote(s.name) || errors.Is(err, leat.ErrMismatch)) {
			return fmt.Errorf("stage %s: %w", s.name, err)
		}
	}
	return nil
}

func (p *process) common(name string) stage.Common {
	return stage.Common{
		Name: name, Out: p.producer, Dead: p.dead, Health: p.health, Log: p.log,
	}
}

// run runs the stages beside each other until one fails, ctx ends or all is done.
func (p *process) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.health.Run(gctx) })
	for _, s := range p.flow() {
		if !p.has(s.name) {
			continue
		}
		g.Go(func() error {
			if err := p.consume(gctx, s); err != nil {
				return fmt.Errorf("stage %s: %w", s.name, err)
			}
			return nil
		})
	}
	var reading sync.WaitGroup // sources that have not caught up, with Once
	if p.has(stage.Sources) && len(p.sources) > 0 {
		reading.Add(len(p.sources))
		g.Go(func() error { return p.lead(gctx, &reading) })
	}
	if p.options.Once {
		g.Go(func() error {
			defer cancel()
			return p.drain(gctx, &reading)
		})
	}
	if p.options.Watch != nil {
		g.Go(func() error { return p.watch(gctx) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// consume runs a stage. It is in its group from the start; what it is given
// waits until its store can be reached.
func (p *process) consume(ctx context.Context, s flowStage) error {
	g, ctx := errgroup.WithContext(ctx)
	var handle handler
	ready := make(chan struct{})
	g.Go(func() error {
		err := retry.Do(ctx, func() (err error) {
			if handle, err = p.prepare[s.name](ctx); errors.Is(err, leat.ErrMismatch) {
				err = leat.Permanent(err)
			}
			return err
		}, func(err error) { p.health.Retrying(s.name, err) })
		if err != nil {
			return err
		}
		p.health.Running(s.name)
		close(ready)
		return nil
	})
	g.Go(func() error {
		cfg := bus.ConsumeConfig{Group: s.group, Topic: s.topic, MaxRecords: s.maxRecords, MaxBytes: s.maxBytes, Mixed: s.mixed, Every: s.every}
		return p.conn.Consume(ctx, cfg, func(ctx context.Context, batch []bus.Record) error {
			select {
			case <-ready:
				return handle(ctx, batch)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return g.Wait()
}

// lead runs the sources that this process leads.
func (p *process) lead(ctx context.Context, reading *sync.WaitGroup) error {
	byName := make(map[string]leat.Source, len(p.sources))
	names := make([]string, len(p.sources))
	for i, s := range p.sources {
		byName[s.name], names[i] = s, s.name
	}
	return p.conn.Lead(ctx, p.groups.Sources, p.topics.Positions, names, func(ctx context.Context, name string) error {
		s := stage.Source{
			Name: name, Source: byName[name], Once: p.options.Once, Out: p.producer, Dead: p.dead,
			Load: func(ctx context.Context) (stage.Position, error) {
				return loadPosition(ctx, p.conn, p.topics.Positions, name)
			},
			Known:     p.known,
			Documents: p.topics.Documents, Positions: p.topics.Positions,
			Health: p.health, Log: p.log,
		}
		err := s.Run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if p.options.Once {
			reading.Done()
			return err
		}
		return nil // of a failure only an operator can mend, status tells; the rest goes on
	})
}

// known waits until what the documents topic holds now has passed every stage,
// then lists what the index holds.
func (p *process) known(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		for _, s := range p.flow() {
			waits := time.AfterFunc(time.Second, func() {
				p.log.Info("waiting until the backlog of a stage has been worked off", "stage", s.name, "for documents of", prefix)
			})
			err := p.conn.WaitConsumed(ctx, s.group, s.topic)
			waits.Stop()
			if err != nil {
				yield(leat.DocumentState{}, err)
				return
			}
		}
		text, err := p.stores.Text(ctx)
		if err != nil {
			yield(leat.DocumentState{}, err)
			return
		}
		for d, err := range text.Documents(ctx, prefix) {
			if !yield(d, err) {
				return
			}
		}
	}
}

// drain returns once the sources have caught up and the stages of this process
// have consumed, in the order of the flow, everything there was.
func (p *process) drain(ctx context.Context, reading *sync.WaitGroup) error {
	caughtUp := make(chan struct{})
	go func() {
		reading.Wait()
		close(caughtUp)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-caughtUp:
	}
	for _, s := range p.flow() {
		if p.has(s.name) {
			if err := p.conn.WaitConsumed(ctx, s.group, s.topic); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *process) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		snap := Snapshot{States: p.health.States(), Backlog: map[string]int64{}}
		for _, s := range p.flow() {
			if !p.has(s.name) {
				continue
			}
			if lag, err := p.conn.Lag(ctx, s.group, s.topic); err == nil {
				for _, l := range lag {
					snap.Backlog[s.name] += l.Records()
				}
			}
		}
		p.options.Watch(snap)
	}
}
