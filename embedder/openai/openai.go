package openai

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"leat"
)

const (
	tries         = 5                // of one request, over some seconds, before its error is returned
	maxRetryAfter = 10 * time.Minute // a server that asks for more is asked again after so long
	probe         = "hello"          // what no server refuses for its content
)

// Embedder implements leat.Embedder.
type Embedder struct {
	cfg     Config
	client  *http.Client
	limiter *rate.Limiter

	mu        sync.Mutex
	notBefore time.Time // the server asked for a pause until then
}

// New returns an embedder; it asks nothing of the server.
func New(cfg Config) (*Embedder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = cfg.Concurrency
	limit := rate.Inf
	if cfg.RequestsPerMinute > 0 {
		limit = rate.Limit(float64(cfg.RequestsPerMinute) / 60)
	}
	return &Embedder{
		cfg:     cfg,
		client:  &http.Client{Transport: transport, Timeout: cfg.Timeout},
		limiter: rate.NewLimiter(limit, 1),
	}, nil
}

// Model implements leat.Embedder.
func (e *Embedder) Model() leat.Model {
	prefix := max(estimate(e.cfg.QueryPrefix), estimate(e.cfg.PassagePrefix))
	return leat.Model{Name: e.cfg.Model, Dimension: e.cfg.Dimension, MaxTokens: max(1, e.cfg.MaxTokens-prefix-2)}
}

// Prefix is what stands before each text of a kind.
func (e *Embedder) Prefix(kind leat.Kind) string {
	if kind == leat.Query {
		return e.cfg.QueryPrefix
	}
	return e.cfg.PassagePrefix
}

// Close implements leat.Embedder.
func (e *Embedder) Close() error {
	e.client.CloseIdleConnections()
	return nil
}

// estimate is the tokens of a text for the caps of a request, on the safe side:
// one for every three bytes begun. That is about 1.5 times too many for English,
// right for Chinese with the older OpenAI models and more than most others count.
func estimate(text string) int { return (len(text) + 2) / 3 }

// Embed implements leat.Embedder. A Permanent error says that the server
// refuses some of the texts; the vectors are returned with it, nil for those.
// Every other error speaks of the server or the configuration and comes
// without vectors.
func (e *Embedder) Embed(ctx context.Context, kind leat.Kind, texts []string) ([][]float32, error) {
	prefix := e.Prefix(kind)
	inputs := make([]string, len(texts))
	for i, text := range texts {
		inputs[i] = prefix + text
	}
	vectors := make([][]float32, len(texts))
	refused := make([]error, len(texts))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(e.cfg.Concurrency)
	for lo := 0; lo < len(inputs); {
		hi, tokens := lo+1, estimate(inputs[lo])
		for hi < len(inputs) && hi-lo < e.cfg.Batch {
			if tokens += estimate(inputs[hi]); tokens > e.cfg.BatchTokens {
				break
			}
			hi++
		}
		batch, out, errs := inputs[lo:hi], vectors[lo:hi], refused[lo:hi]
		g.Go(func() error { return e.batch(gctx, batch, out, errs) })
		lo = hi
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, err := range refused {
		if err != nil {
			return vectors, leat.Hint(leat.Permanent(fmt.Errorf("text %d of %d: %w", i+1, len(texts), err)),
				"the server refuses this text; if it is too long, lower embedder.openai.max_tokens")
		}
	}
	return vectors, nil
}

// batch embeds texts into vectors. Where the server fails at them and at
// nothing else, it asks for each half, so that in the end only the texts at
// fault are refused.
func (e *Embedder) batch(ctx context.Context, texts []string, vectors [][]float32, refused []error) error {
	err := e.retried(ctx, texts, vectors)
	if err == nil || ctx.Err() != nil {
		return err
	}
	var f *failure
	if errors.As(err, &f) && (f.kind == config || f.kind == busy) {
		return err
	}
	// A server that is down, or that is asked for a model it does not have,
	// shall not cost every document its place: see whether it embeds anything.
	if perr := e.request(ctx, []string{probe}, make([][]float32, 1)); perr != nil {
		if f != nil && f.kind == refusal {
			return leat.Hint(err, "the server refuses every text: check embedder.openai.url and model")
		}
		return err
	}
	if half := len(texts) / 2; half > 0 {
		if err := e.batch(ctx, texts[:half], vectors[:half], refused[:half]); err != nil {
			return err
		}
		return e.batch(ctx, texts[half:], vectors[half:], refused[half:])
	}
	vectors[0], refused[0] = nil, err
	return nil
}

// retried asks until the server answers, a few times, with growing pauses.
func (e *Embedder) retried(ctx context.Context, texts []string, vectors [][]float32) error {
	pauses := backoff.NewExponentialBackOff() // from half a second on, jittered
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := e.request(ctx, texts, vectors)
		var f *failure
		if errors.As(err, &f) && (f.kind == config || f.kind == refusal) || err != nil && ctx.Err() != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(0))
	var p *backoff.PermanentError
	if errors.As(err, &p) {
		return p.Unwrap()
	}
	return err
}

// pause waits until the server and the configured rate allow a request.
func (e *Embedder) pause(ctx context.Context) error {
	e.mu.Lock()
	until := e.notBefore
	e.mu.Unlock()
	if wait := time.Until(until); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return e.limiter.Wait(ctx)
}

// request embeds texts by one request.
func (e *Embedder) request(ctx context.Context, texts []string, vectors [][]float32) error {
	if err := e.pause(ctx); err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		Model          string   `json:"model"`
		Input          []string `json:"input"`
		EncodingFormat string   `json:"encoding_format"`
	}{e.cfg.Model, texts, "float"})
	if err != nil {
		return fmt.Errorf("embedding server: %w", err)
	}
	address := strings.TrimSuffix(e.cfg.URL, "/") + "/embeddings"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("embedding server: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if e.cfg.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+e.cfg.APIKey.Reveal())
	}
	res, err := e.client.Do(req)
	if err != nil {
		return leat.Hint(fmt.Errorf("embedding server: %w", err), "check that the server at %s runs and is reachable", e.cfg.URL)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return e.failed(res, address)
	}
	// A number takes at most some 25 bytes; a server that sends more than it
	// was asked for does not fill the memory (I8).
	limit := int64(len(texts))*int64(e.cfg.Dimension)*32 + 1<<20
	r := &io.LimitedReader{R: res.Body, N: limit}
	var reply struct {
		Data []struct {
			Index     *int      `json:"index"`
			Embedding []float64 `json:"embedding"`
		} `json:"data"`
	}
	if err := json.NewDecoder(r).Decode(&reply); err != nil {
		if r.N <= 0 {
			return leat.Hint(fmt.Errorf("embedding server: an answer of more than %d bytes to %d texts", limit, len(texts)),
				"check embedder.openai.dimension (%d) and model", e.cfg.Dimension)
		}
		return leat.Hint(fmt.Errorf("embedding server: the answer is not as expected: %w", err),
			"check that %s is an OpenAI-compatible server", address)
	}
	if len(reply.Data) != len(texts) {
		return fmt.Errorf("embedding server: %d vectors for %d texts", len(reply.Data), len(texts))
	}
	clear(vectors)
	for i, d := range reply.Data {
		at := i
		if d.Index != nil { // servers may answer in any order
			at = *d.Index
		}
		if at < 0 || at >= len(vectors) || vectors[at] != nil {
			return fmt.Errorf("embedding server: vector %d has index %d of %d texts", i, at, len(texts))
		}
		if len(d.Embedding) != e.cfg.Dimension {
			return leat.Hint(&failure{config, fmt.Sprintf("embedding server: model %q gives vectors of %d dimensions, not %d",
				e.cfg.Model, len(d.Embedding), e.cfg.Dimension)},
				"set embedder.openai.dimension to %d, or use the model that was meant", len(d.Embedding))
		}
		if vectors[at] = unit(d.Embedding); vectors[at] == nil {
			return fmt.Errorf("embedding server: vector %d is zero or not finite", at)
		}
	}
	return nil
}

// unit is v at length 1, or nil if it has no direction.
func unit(v []float64) []float32 {
	var sum float64
	for _, x := range v {
		sum += x * x
	}
	if sum == 0 || math.IsInf(sum, 0) || math.IsNaN(sum) {
		return nil
	}
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x / math.Sqrt(sum))
	}
	return out
}

// failure is an answer other than vectors. Errors of the network and answers
// that are not as expected are none; they are tried again like trouble.
type failure struct {
	kind kind
	msg  string
}

type kind int

const (
	trouble kind = iota // of the server: try again; if it lasts, a text may be its cause
	busy                // try again later
	refusal             // of the texts, or of so many at once
	config              // nothing that a second request changes
)

func (f *failure) Error() string { return f.msg }

func kindOf(status int) kind {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return refusal
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return busy
	case http.StatusRequestTimeout:
		return trouble
	}
	if status >= 500 {
		return trouble
	}
	return config
}

// failed makes an error of an answer that is not 200, and keeps the pause that
// it asks for.
func (e *Embedder) failed(res *http.Response, address string) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4096)) // for the message only
	var said struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	var inner struct {
		Message string `json:"message"`
	}
	message := strings.TrimSpace(string(text))
	if json.Unmarshal(text, &said) == nil {
		var plain string
		_ = json.Unmarshal(said.Error, &plain) // one of the two forms that are about
		_ = json.Unmarshal(said.Error, &inner)
		message = cmp.Or(inner.Message, plain, said.Message, message)
	}
	err := error(&failure{kindOf(res.StatusCode), fmt.Sprintf("embedding server: %s: %.300s", res.Status, message)})
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return leat.Hint(err, "check embedder.openai.api_key")
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return leat.Hint(err, "check embedder.openai.url (%s was asked) and model %q", address, e.cfg.Model)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if d, ok := retryAfter(res.Header.Get("Retry-After"), time.Now()); ok {
			e.mu.Lock()
			if until := time.Now().Add(min(d, maxRetryAfter)); until.After(e.notBefore) {
				e.notBefore = until
			}
			e.mu.Unlock()
		}
		return leat.Hint(err, "the server is at its limit; lower embedder.openai.concurrency or requests_per_minute if it stays so")
	}
	return err
}

// retryAfter reads the header's two forms (RFC 9110, 10.2.3).
func retryAfter(value string, now time.Time) (time.Duration, bool) {
	if s, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && s >= 0 {
		return time.Duration(min(s, int(maxRetryAfter.Seconds()))) * time.Second, true
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(0, t.Sub(now)), true
	}
	return 0, false
}
