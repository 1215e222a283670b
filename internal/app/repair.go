package app

import (
	"context"
	"errors"
	"slices"

	"leat"
	"leat/internal/bus"
	"leat/internal/codec"
)

// Repair verifies, sends again or removes exactly what is not right, and verifies
// again.
func (a *App) Repair(ctx context.Context, report func(checked int64)) (v *Verdict, err error) {
	x, err := a.openVerifier(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	if v, err = x.verify(ctx, report); err != nil || v.OK {
		return v, err
	}
	repaired := 0
	err = a.withStages(ctx, func(ctx context.Context, conn connection, p *bus.Producer) (err error) {
		repaired, err = x.repair(ctx, conn, p, v)
		return err
	})
	if err != nil {
		return v, err
	}
	if v, err = x.verify(ctx, report); err == nil {
		v.Repaired = repaired
	}
	return v, err
}

// repair sends the documents that are not right again, as their sources hold
// them now, and removes what belongs to no document. It returns how many.
func (x *verifier) repair(ctx context.Context, conn connection, p *bus.Producer, v *Verdict) (int, error) {
	n := 0
	for vectors, strays := range v.strays {
		if err := x.discard(ctx, vectors, strays); err != nil {
			return n, err
		}
		n += len(strays)
	}
	isStray := map[string]bool{}
	for _, s := range slices.Concat(v.strays[false], v.strays[true]) {
		isStray[s] = true
	}
	ids := slices.DeleteFunc(v.wrong(), func(id string) bool { return isStray[id] })
	for some := range slices.Chunk(ids, suspectsAtOnce) {
		if err := x.send(ctx, conn, p, some); err != nil {
			return n, err
		}
		n += len(some)
	}
	s, err := x.state(ctx, conn)
	if err == nil {
		_, err = x.waitFor(ctx, conn, s.Live)
	}
	return n, err
}

// discard removes strays by an index of its own: the verifier's are for reading.
func (x *verifier) discard(ctx context.Context, vectors bool, strays []string) error {
	s := &stores{app: x.App, generation: x.stores.generation, write: true}
	var sink leat.Sink
	var err error
	if vectors {
		var m leat.Model
		if m, err = x.stores.Model(ctx); err == nil {
			sink, err = s.Vectors(ctx, m)
		}
	} else {
		sink, err = s.Text(ctx)
	}
	if err == nil {
		err = sink.Discard(ctx, strays)
	}
	return errors.Join(err, s.Close())
}

// send emits events of what the sources hold of documents now.
func (x *verifier) send(ctx context.Context, conn connection, p *bus.Producer, ids []string) error {
	m, err := x.newMender(ctx, conn, p)
	if err != nil {
		return err
	}
	known, err := m.versions(ctx, ids)
	if err != nil {
		return err
	}
	above := make([]uint64, len(ids))
	for i, id := range ids {
		above[i] = known[id]
		for _, sink := range []leat.Sink{x.text, x.vectors} {
			d, err := state(ctx, sink, id)
			if err != nil {
				return err
			}
			if d != nil {
				above[i] = max(above[i], d.Version)
			}
		}
	}
	events, err := x.look(ctx, conn, ids, above)
	if err != nil {
		return err
	}
	var foreign []string
	for i, e := range events {
		if e == nil {
			foreign = append(foreign, ids[i])
			continue
		}
		e.Again = true
		r, err := codec.EncodeEvent(x.topics().Documents, *e)
		if err != nil {
			return err
		}
		if err := m.add(ctx, r); err != nil {
			return err
		}
	}
	if err := m.flush(ctx); err != nil || len(foreign) == 0 {
		return err
	}
	return x.resend(ctx, conn, p, true, func(id string) bool { return slices.Contains(foreign, id) })
}
