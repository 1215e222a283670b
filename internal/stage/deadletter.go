package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"leat"
	"leat/internal/bus"
	"leat/internal/guard"
)

// DeadLetter is what the deadletters topic holds of a document that a stage
// could not process: the newest one of each stage and document.
type DeadLetter struct {
	Stage     string    `json:"stage"` // Sources, or see Component
	Document  string    `json:"document"`
	Version   uint64    `json:"version"`
	Reason    string    `json:"reason"`
	Hint      string    `json:"hint,omitempty"`
	Time      time.Time `json:"time"`
	Topic     string    `json:"topic"`
	Partition int       `json:"partition"`
	Offset    int64     `json:"offset"`
}

// ID identifies the dead letter: its key on the topic.
func (d DeadLetter) ID() string { return d.Stage + "/" + d.Document }

// Generation is that of the stage; 0 for the sources, which all of them share.
func (d DeadLetter) Generation() (n int) {
	_, _ = fmt.Sscanf(d.Stage, "g%d.", &n)
	return n
}

// DecodeDeadLetter reads a record of the deadletters topic.
func DecodeDeadLetter(r bus.Record) (DeadLetter, error) {
	var d DeadLetter
	if err := json.Unmarshal(r.Value, &d); err != nil {
		return d, fmt.Errorf("dead letter %q at offset %d: %w", r.Key, r.Offset, err)
	}
	return d, nil
}

// DeadLetters writes to the deadletters topic.
type DeadLetters struct {
	Topic string
	Out   Producer
	Log   *slog.Logger
}

// Put makes a dead letter of a record's document durable (I5).
func (d *DeadLetters) Put(ctx context.Context, stage string, r bus.Record, document string, version uint64, cause error) error {
	if guard.Removed("I5") {
		return nil
	}
	letter := DeadLetter{
		Stage: stage, Document: document, Version: version,
		Reason: cause.Error(), Hint: leat.HintOf(cause), Time: time.Now().UTC(),
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
	}
	if letter.Hint == "" {
		letter.Hint = defaultHint(cause)
	}
	value, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("encode dead letter of %s: %w", document, err)
	}
	d.Log.Warn("dead letter", "stage", stage, "document", document, "version", version, "error", cause, "hint", letter.Hint)
	return d.Out.Produce(ctx, bus.Record{Topic: d.Topic, Key: []byte(letter.ID()), Value: value})
}

func defaultHint(cause error) string {
	switch {
	case errors.Is(cause, leat.ErrUnsupported):
		return "convert the document to a format leat reads, or exclude it at its source"
	case errors.Is(cause, leat.ErrMalformed):
		return "mend the document at its source; its next version is tried by itself"
	case errors.Is(cause, leat.ErrTooLarge):
		return "split the document at its source, or raise the limit that the reason names"
	}
	return "mend the cause, then run `leat dlq retry`"
}
