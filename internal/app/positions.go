package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"leat"
	"leat/internal/bus"
	"leat/internal/stage"
)

// loadPosition reads the newest claim's epoch of a source and the position that
// it has reached.
func loadPosition(ctx context.Context, c connection, topic, source string) (stage.Position, error) {
	var claim, position stage.Position
	if err := lookup(ctx, c, topic, stage.ClaimKey(source), &claim); err != nil {
		return claim, err
	}
	if err := lookup(ctx, c, topic, stage.PositionKey(source), &position); err != nil {
		return position, err
	}
	return stage.Position{Epoch: claim.Epoch, Position: position.Position, Saved: position.Saved}, nil
}

// lookup decodes the latest record of key into v, and leaves v alone where there is none.
func lookup(ctx context.Context, c connection, topic, key string, v any) error {
	r, err := c.Lookup(ctx, topic, []byte(key))
	switch {
	case errors.Is(err, leat.ErrNotFound), err == nil && r.Value == nil:
		return nil
	case err != nil:
		return fmt.Errorf("read %s of %s: %w", key, topic, err)
	}
	if err := json.Unmarshal(r.Value, v); err != nil {
		return fmt.Errorf("%s of %s at offset %d: %w", key, topic, r.Offset, err)
	}
	return nil
}

// ForgetPosition takes the saved position of a source off the topic, so that
// its next session reads it from its beginning, and returns its full name.
func (a *App) ForgetPosition(ctx context.Context, name string) (string, error) {
	full := ""
	for _, s := range a.cfg.Sources {
		if s.Name == name || s.Kind()+":"+s.Name == name {
			full = s.Kind() + ":" + s.Name
		}
	}
	if full == "" {
		return "", leat.Hint(fmt.Errorf("pipeline.yaml has no source %q", name), "its sources: %s", a.Describe())
	}
	return full, a.withProducer(ctx, func(conn connection, p *bus.Producer) error {
		states, _, err := a.readStates(ctx, conn)
		if err != nil {
			return err
		}
		running, err := a.readRunning(ctx, conn)
		if err != nil {
			return err
		}
		// A session that runs would save its position again.
		if s, _ := latest(states["source/"+full], running[a.groups.Sources]); s.State == "running" || s.State == "retrying" {
			return leat.Hint(fmt.Errorf("source %s is being read by process %s", full, s.Process), "stop leat run, then try again")
		}
		return p.Produce(ctx, bus.Record{Topic: a.topics.Positions, Key: []byte(stage.PositionKey(full))})
	})
}
