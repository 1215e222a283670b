package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"leat"
	"leat/internal/bus"
	"leat/internal/reindex"
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
	Backlog map[string]int64 // records to consume, by stage of a generation (stage.Component)
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
	free     bool // of pipeline.yaml: it need not fit a generation yet
	conn     connection
	producer *bus.Producer
	dead     *stage.DeadLetters
	health   *stage.Health
	sources  []source
	turns    turns
	flows    map[int]*flow  // opened and not yet running, by generation
	closers  []func() error // closed last to first

	mu      sync.Mutex
	now     reindex.State
	changed chan struct{} // closed when now is another
}

// state of the generations.
func (p *process) state() reindex.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *process) setState(s reindex.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = s
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *process) close() error {
	var err error
	for _, f := range p.flows {
		err = errors.Join(err, f.close())
	}
	for _, c := range slices.Backward(p.closers) {
		err = errors.Join(err, c())
	}
	return err
}

func (p *process) has(name string) bool {
	return len(p.options.Stages) == 0 || slices.Contains(p.options.Stages, name)
}

// consumes reports whether this process runs more than sources.
func (p *process) consumes() bool {
	return slices.ContainsFunc(p.flow(0), func(s flowStage) bool { return p.has(s.name) })
}

// atBroker calls f, and again while Kafka is away, which it may be from one
// request to the next. With Once nothing is waited for.
func (p *process) atBroker(ctx context.Context, f func() error) error {
	return retry.Do(ctx, func() error {
		err := f()
		if p.options.Once || !bus.IsAway(err) {
			err = leat.Permanent(err)
		}
		return err
	}, func(err error) {
		p.log.Warn("waiting for Kafka", "error", err, "hint", leat.HintOf(err))
	})
}

// open opens what all generations share, and the stages of the live one, which
// pipeline.yaml has to fit.
func (p *process) open(ctx context.Context) (err error) {
	p.flows, p.changed = map[int]*flow{}, make(chan struct{})
	err = p.atBroker(ctx, func() (err error) {
		p.conn, err = p.connect(ctx, true)
		return err
	})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, p.conn.Close)
	if err := p.atBroker(ctx, func() error { return p.ensureTopics(ctx, p.conn) }); err != nil {
		return err
	}
	var producer bus.ProducerConfig
	if p.cfg.Kafka != nil {
		producer.Every = produceEvery
	}
	p.producer = p.conn.NewProducer(producer)
	p.closers = append(p.closers, p.producer.Close)
	p.dead = &stage.DeadLetters{Topic: p.topics().DeadLetters, Out: p.producer, Log: p.log}
	p.health = &stage.Health{Topic: p.topics().Positions, Out: p.producer, Log: p.log}

	if p.sources, err = p.App.sources(); err != nil {
		return err
	}
	p.closers = append(p.closers, func() error { return closeAll(p.sources) })

	var s reindex.State
	err = p.atBroker(ctx, func() (err error) {
		s, err = p.begun(ctx, p.conn, p.producer)
		return err
	})
	if err != nil {
		return err
	}
	p.setState(s)
	if !p.free {
		if err := p.App.fits(s); err != nil {
			return err
		}
	}
	if !p.consumes() {
		return nil
	}
	f, err := p.openFlow(ctx, *s.Find(s.Live))
	if err != nil {
		return err
	}
	p.flows[s.Live] = f
	return f.fits(ctx)
}

// run runs the stages beside each other until one fails, ctx ends or all is done.
func (p *process) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.health.Run(gctx) })
	g.Go(func() error { return p.supervise(gctx) })
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

// supervise runs the stages of every generation that is fed, from when it begins
// until it is dropped.
func (p *process) supervise(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	type running struct {
		stop func()
		done chan struct{}
	}
	all := map[int]running{}
	follow := func(s reindex.State) error {
		p.setState(s)
		fed := map[int]bool{}
		for _, x := range s.Fed() {
			fed[x.Number] = p.consumes()
		}
		for n, r := range all {
			if !fed[n] {
				r.stop()
				<-r.done
				delete(all, n)
			}
		}
		for _, x := range s.Fed() {
			if _, there := all[x.Number]; there || !fed[x.Number] {
				continue
			}
			fctx, stop := context.WithCancel(ctx)
			r := running{stop, make(chan struct{})}
			all[x.Number] = r
			f := p.flows[x.Number]
			delete(p.flows, x.Number)
			g.Go(func() error {
				defer close(r.done)
				defer stop()
				err := p.feed(fctx, x, f)
				if fctx.Err() != nil {
					return ctx.Err()
				}
				return err
			})
		}
		return nil
	}
	now := p.state()
	if err := follow(now); err != nil {
		return err
	}
	g.Go(func() error { return p.generations(p.conn).Watch(ctx, now.Revision, follow) })
	return g.Wait()
}

// feed runs a generation's stages, which f holds where they are open already. A
// failure of one that is not live stops that one alone, unless its end is waited
// for.
func (p *process) feed(ctx context.Context, g reindex.Generation, f *flow) (err error) {
	failing := func(tell func(component string, err error)) func(error) {
		return func(err error) {
			for _, s := range p.flow(g.Number) {
				if p.has(s.name) {
					tell(stage.Component(g.Number, s.name), err)
				}
			}
		}
	}
	if f == nil {
		err = retry.Do(ctx, func() (err error) {
			if f, err = p.openFlow(ctx, g); errors.Is(err, leat.ErrMismatch) {
				err = leat.Permanent(err)
			}
			return err
		}, failing(p.health.Retrying))
	}
	if err == nil {
		err = f.run(ctx)
		err = errors.Join(err, f.close())
	}
	if err == nil || ctx.Err() != nil || p.state().Live == g.Number || p.options.Once {
		return err
	}
	failing(p.health.Failed)(err)
	return nil
}

// lead runs the sources that this process leads.
func (p *process) lead(ctx context.Context, reading *sync.WaitGroup) error {
	byName := make(map[string]leat.Source, len(p.sources))
	names := make([]string, len(p.sources))
	for i, s := range p.sources {
		byName[s.name], names[i] = s, s.name
	}
	return p.conn.Lead(ctx, p.sourcesGroup(), p.topics().Positions, names, func(ctx context.Context, name string) error {
		s := stage.Source{
			Name: name, Source: byName[name], Once: p.options.Once, Out: p.producer, Dead: p.dead,
			Load: func(ctx context.Context) (stage.Position, error) {
				return loadPosition(ctx, p.conn, p.topics().Positions, name)
			},
			Known: p.known, Reread: func() (int64, <-chan struct{}) { return p.reread(name) },
			Documents: p.topics().Documents, Positions: p.topics().Positions,
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

// reread is how often a source was asked to be read again from its beginning,
// and a channel that closes when that may have changed.
func (p *process) reread(source string) (int64, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now.Reread[source], p.changed
}

// known waits until what the documents topic holds now has passed every stage of
// the live generation, then lists what its index holds.
func (p *process) known(ctx context.Context, prefix string) iter.Seq2[leat.DocumentState, error] {
	return func(yield func(leat.DocumentState, error) bool) {
		live := p.state().Live
		waits := time.AfterFunc(time.Second, func() {
			p.log.Info("waiting until the backlog of the stages has been worked off", "for documents of", prefix)
		})
		_, err := p.waitFor(ctx, p.conn, live)
		waits.Stop()
		if err != nil {
			yield(leat.DocumentState{}, err)
			return
		}
		s := stores{app: p.App, generation: live}
		defer s.Close()
		text, err := s.Text(ctx)
		if errors.Is(err, fs.ErrNotExist) { // nothing was indexed yet
			return
		}
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
	for _, g := range p.state().Fed() {
		for _, s := range p.flow(g.Number) {
			if p.has(s.name) {
				if err := p.conn.WaitConsumed(ctx, s.group, s.topic); err != nil {
					return err
				}
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
		for _, g := range p.state().Fed() {
			for _, s := range p.flow(g.Number) {
				if p.has(s.name) {
					if n, err := p.backlog(ctx, p.conn, s); err == nil {
						snap.Backlog[stage.Component(g.Number, s.name)] = n
					}
				}
			}
		}
		p.options.Watch(snap)
	}
}
