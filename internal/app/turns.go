package app

import (
	"context"
	"runtime"
	"sync"
	"time"

	"leat"
	"leat/embedder/builtin"
	"leat/internal/bus"
)

// turns lets the stages of the live generation go first: those of others begin a
// piece of work while none of them is at work, and keep pieces small, since that
// is what a live change may then have to wait for.
type turns struct {
	mu     sync.Mutex
	active int           // live handlers at work
	idle   chan struct{} // closed when there are none; nil then
	ended  time.Time     // when the last of them was done
}

const (
	// patience bounds how long a live generation without a pause holds others back.
	patience = 250 * time.Millisecond
	// calm is how long it has been idle where no change of it is expected soon.
	calm = time.Second
)

// first runs f as work of the live generation.
func (t *turns) first(f func() error) error {
	t.mu.Lock()
	if t.active++; t.active == 1 {
		t.idle = make(chan struct{})
	}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		if t.active--; t.active == 0 {
			close(t.idle)
			t.idle, t.ended = nil, time.Now()
		}
		t.mu.Unlock()
	}()
	return f()
}

// wait returns when no live handler is at work, or after patience.
func (t *turns) wait(ctx context.Context) {
	t.mu.Lock()
	idle := t.idle
	t.mu.Unlock()
	if idle == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// cores are how many others may keep busy: one is left to the live generation
// while its changes come.
func (t *turns) cores() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := runtime.GOMAXPROCS(0)
	if t.active > 0 || time.Since(t.ended) < calm {
		n--
	}
	return max(n, 1)
}

// inTurn is a stage's handler that keeps to the turns.
func (f *flow) inTurn(handle handler) handler {
	return func(ctx context.Context, batch []bus.Record) error {
		if f.state().Live == f.generation {
			return f.turns.first(func() error { return handle(ctx, batch) })
		}
		for len(batch) > 0 {
			piece := firstPiece(batch)
			batch = batch[len(piece):]
			f.turns.wait(ctx)
			if err := handle(ctx, piece); err != nil {
				return err
			}
		}
		return nil
	}
}

// Pieces of work of a generation that is not live: records of a batch and their
// bytes, since a long document is as much work as many short ones.
const (
	pieceRecords = 100
	pieceBytes   = 64 << 10
)

// firstPiece of a batch is one record at least.
func firstPiece(batch []bus.Record) []bus.Record {
	n, size := 0, 0
	for n < min(len(batch), pieceRecords) && (n == 0 || size+len(batch[n].Value) <= pieceBytes) {
		size += len(batch[n].Value)
		n++
	}
	return batch[:n]
}

// patientModel is a model in this process, which takes a text on each core, and
// keeps to the turns.
type patientModel struct {
	leat.Embedder
	flow *flow
}

func (m patientModel) Embed(ctx context.Context, kind leat.Kind, texts []string) ([][]float32, error) {
	var out [][]float32
	for len(texts) > 0 {
		n, ectx := len(texts), ctx
		if m.flow.state().Live != m.flow.generation {
			m.flow.turns.wait(ctx)
			n, ectx = min(n, m.flow.turns.cores()), builtin.Aside(ctx)
		}
		vectors, err := m.Embedder.Embed(ectx, kind, texts[:n])
		if err != nil {
			return nil, err
		}
		out, texts = append(out, vectors...), texts[n:]
	}
	return out, nil
}
