package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"leat"
)

const (
	bulkBytes  = 4 << 20 // of one request, unless one item is larger
	bulkItems  = 5000    // of one request
	bulkAtOnce = 2       // requests of one batch
	bulkTries  = 5       // of one request, over some seconds, where the cluster is busy
)

// item is one action of a bulk request.
type item struct {
	document string // whose it is, for messages
	bytes    []byte // the action's line and the document's, if it has one
	// conflict: a newer version than the item's is there already. Such an item
	// is not an error.
	conflict bool
}

// address is what the action's line of an item says.
type address struct {
	ID          string `json:"_id"`
	Routing     string `json:"routing,omitempty"`
	Version     *int64 `json:"version,omitempty"`
	VersionType string `json:"version_type,omitempty"`
	OpType      string `json:"op_type,omitempty"`
	// The last change of what is there; see row.
	SeqNo       *int64 `json:"if_seq_no,omitempty"`
	PrimaryTerm *int64 `json:"if_primary_term,omitempty"`
}

// newItem makes an item that writes source.
func newItem(document string, to address, source any) (*item, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(map[string]address{"index": to})
	if err == nil {
		err = e.Encode(source)
	}
	if err != nil { // of what a document holds, such as a NaN
		return nil, leat.Permanent(fmt.Errorf("%s: %w", document, err))
	}
	return &item{document: document, bytes: b.Bytes()}, nil
}

// deletion makes an item that removes a chunk or a mark.
func deletion(of address) *item {
	b, err := json.Marshal(map[string]address{"delete": of})
	if err != nil {
		panic(err) // strings and numbers are always JSON
	}
	return &item{document: of.ID, bytes: append(b, '\n')}
}

// bulk sends items and returns once every one is durable or its conflict known.
func (x *Index) bulk(ctx context.Context, items []*item) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bulkAtOnce)
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && n < bulkItems && (n == 0 || size+len(items[n].bytes) <= bulkBytes) {
			size += len(items[n].bytes)
			n++
		}
		request := items[:n]
		items = items[n:]
		g.Go(func() error { return x.retried(ctx, request) })
	}
	return g.Wait()
}

// retried sends one request again, a few times, with the items that the cluster
// was too busy for.
func (x *Index) retried(ctx context.Context, items []*item) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = 100 * time.Millisecond
	_, err := backoff.Retry(ctx, func() (_ struct{}, err error) {
		items, err = x.request(ctx, items)
		if len(items) == 0 && err != nil {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxTries(bulkTries), backoff.WithMaxElapsedTime(0))
	var p *backoff.PermanentError
	if errors.As(err, &p) {
		err = p.Unwrap()
	}
	return err
}

// request sends one request. Where the cluster was too busy for some items it
// returns them, with an error; every other error comes without items.
func (x *Index) request(ctx context.Context, items []*item) ([]*item, error) {
	var b bytes.Buffer
	for _, it := range items {
		b.Write(it.bytes)
	}
	var answer struct {
		Errors bool
		Items  []map[string]struct {
			Status int
			Error  struct {
				Type, Reason string
				CausedBy     struct{ Reason string } `json:"caused_by"`
			}
		}
	}
	to := path(x.target, "_bulk") + "?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
	if err := x.call(ctx, http.MethodPost, to, b.Bytes(), &answer); err != nil {
		var r *refusal
		if errors.As(err, &r) && !r.heals() && len(items) == 1 {
			err = leat.Permanent(err)
		}
		return nil, err
	}
	if len(answer.Items) != len(items) {
		return nil, fmt.Errorf("%d answers to %d items", len(answer.Items), len(items))
	}
	if !answer.Errors {
		return nil, nil
	}
	var busy []*item
	var first error
	for i, results := range answer.Items {
		for kind, res := range results {
			r := &refusal{res.Status, res.Error.Type, res.Error.Reason}
			if res.Error.CausedBy.Reason != "" {
				r.Reason += ": " + res.Error.CausedBy.Reason
			}
			switch {
			case r.Status < 300 || kind == "delete" && r.Status == http.StatusNotFound && r.Type == "":
			case r.Status == http.StatusConflict:
				items[i].conflict = true
			case r.heals():
				err := leat.Hint(fmt.Errorf("%s: %w", items[i].document, r), "%s", r.hint())
				if r.diskFull() {
					return nil, err // not soon
				}
				busy = append(busy, items[i])
				if first == nil {
					first = err
				}
			default:
				return nil, leat.Permanent(leat.Hint(fmt.Errorf("%s: %w", items[i].document, r), "%s", r.hint()))
			}
		}
	}
	return busy, first
}
