package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"leat"
	"leat/chunker"
	"leat/embedder"
	"leat/internal/bus"
	"leat/internal/reindex"
	"leat/internal/retry"
	"leat/internal/stage"
)

// flow is a generation's stages in this process and what they hold open.
type flow struct {
	*process
	generation int
	stages     []flowStage
	stores     *stores
	prepare    map[string]prepare // by stage
	closers    []func() error     // closed last to first
}

// handler is what a stage does with a batch of records.
type handler func(context.Context, []bus.Record) error

// prepare opens what a stage needs of a store.
type prepare func(context.Context) (handler, error)

// openFlow opens, in the order of the flow, what the generation's stages in this
// process need.
func (p *process) openFlow(ctx context.Context, g reindex.Generation) (_ *flow, err error) {
	f := &flow{process: p, generation: g.Number, stages: p.flow(g.Number)}
	f.stages = slices.DeleteFunc(f.stages, func(s flowStage) bool { return !p.has(s.name) })
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if err := p.atBroker(ctx, func() error { return p.ensureGeneration(ctx, p.conn, g.Number) }); err != nil {
		return nil, err
	}
	config, err := p.configOf(g)
	if err != nil {
		return nil, err
	}
	model, tokenizer, err := embedder.New(config.Embedder, p.cacheDir(), p.log)
	if err != nil {
		return nil, err
	}
	f.closers = append(f.closers, model.Close)
	if config.Embedder.OpenAI == nil {
		model = patientModel{model, f}
	}
	chunks, err := chunker.New(config.Chunker, tokenizer, model.Model().MaxTokens)
	if err != nil {
		return nil, err
	}
	f.stores = &stores{app: p.App, generation: g.Number, write: true}
	f.closers = append(f.closers, f.stores.Close)
	for i := range f.stages {
		// A model behind a server gains by large requests; the built-in one takes
		// a text on each core.
		s := &f.stages[i]
		s.mixed = s.mixed || s.name == stage.Embedder && config.Embedder.OpenAI != nil
	}

	openers := make(map[string]leat.Opener, len(p.sources))
	for _, s := range p.sources {
		openers[s.name] = s
	}
	topics := bus.Topics(p.cfg.Name, g.Number)
	cut := stage.Chunks{Common: f.common(stage.Chunker), Chunker: chunks, Openers: openers, Topic: topics.Chunks}
	embed := stage.Vectors{Common: f.common(stage.Embedder), Model: model, Topic: topics.Vectors}
	f.prepare = map[string]prepare{
		stage.Chunker:  func(context.Context) (handler, error) { return cut.Handle, nil },
		stage.Embedder: func(context.Context) (handler, error) { return embed.Handle, nil },
		stage.TextIndexer: func(ctx context.Context) (handler, error) {
			text, err := f.stores.Text(ctx)
			index := stage.Index{Common: f.common(stage.TextIndexer), Sink: text}
			if err == nil {
				err = f.firstAlias(ctx, func() (leat.Generations, error) { return p.textGenerations(true) })
			}
			return index.Handle, err
		},
		stage.VectorIndexer: func(ctx context.Context) (handler, error) {
			vectors, err := f.stores.Vectors(ctx, model.Model())
			index := stage.Index{Common: f.common(stage.VectorIndexer), Sink: vectors}
			if err == nil {
				err = f.firstAlias(ctx, func() (leat.Generations, error) { return p.vectorGenerations(ctx, true) })
			}
			return index.Handle, err
		},
	}
	return f, nil
}

// firstAlias makes a store's alias lead to the live generation where it leads
// nowhere yet. What it leads to otherwise, a switch alone changes.
func (f *flow) firstAlias(ctx context.Context, open func() (leat.Generations, error)) error {
	if f.state().Live != f.generation {
		return nil
	}
	g, err := open()
	if err != nil {
		return err
	}
	n, err := g.Live(ctx)
	if err == nil && n == 0 {
		err = g.Switch(ctx, f.generation)
	}
	return errors.Join(err, g.Close())
}

func (f *flow) close() error {
	var err error
	for _, c := range slices.Backward(f.closers) {
		err = errors.Join(err, c())
	}
	return err
}

func (f *flow) common(name string) stage.Common {
	return stage.Common{
		Name: stage.Component(f.generation, name), Out: f.producer, Dead: f.dead, Health: f.health, Log: f.log,
	}
}

// fits refuses to start on a store that needs an operator: a file that cannot
// be opened, an index that holds what does not fit. A server that cannot be
// reached may heal, so its stage waits for it while the others run.
func (f *flow) fits(ctx context.Context) error {
	for _, s := range f.stages {
		if _, err := f.prepare[s.name](ctx); err != nil && (!f.remote(s.name) || errors.Is(err, leat.ErrMismatch)) {
			return fmt.Errorf("stage %s: %w", s.name, err)
		}
	}
	return nil
}

// run runs the stages beside each other until one fails or ctx ends.
func (f *flow) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range f.stages {
		g.Go(func() error {
			if err := f.consume(ctx, s); err != nil {
				return fmt.Errorf("stage %s: %w", stage.Component(f.generation, s.name), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// consume runs a stage. It is in its group from the start; what it is given
// waits until its store can be reached.
func (f *flow) consume(ctx context.Context, s flowStage) error {
	g, ctx := errgroup.WithContext(ctx)
	var handle handler
	ready := make(chan struct{})
	component := stage.Component(f.generation, s.name)
	g.Go(func() error {
		err := retry.Do(ctx, func() (err error) {
			if handle, err = f.prepare[s.name](ctx); errors.Is(err, leat.ErrMismatch) {
				err = leat.Permanent(err)
			}
			return err
		}, func(err error) { f.health.Retrying(component, err) })
		if err != nil {
			return err
		}
		f.health.Running(component)
		close(ready)
		return nil
	})
	g.Go(func() error {
		cfg := bus.ConsumeConfig{Group: s.group, Topic: s.topic, MaxRecords: s.maxRecords, MaxBytes: s.maxBytes, Mixed: s.mixed, Every: s.every}
		return f.conn.Consume(ctx, cfg, func(ctx context.Context, batch []bus.Record) error {
			select {
			case <-ready:
				return f.inTurn(handle)(ctx, batch)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return g.Wait()
}
