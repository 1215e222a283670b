package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"leat"
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
	position.Epoch = claim.Epoch
	return position, nil
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
