// Package builtin embeds texts in this process: multilingual-e5-small (Wang
// et al. 2024, "Multilingual E5 Text Embeddings") with int8 weights on ONNX
// Runtime, on the CPU alone. `make model` gets it into the user's cache;
// docs/adr/003-builtin-model.md tells why this model in this form.
package builtin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	ort "github.com/yalue/onnxruntime_go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"leat"
)

// Name identifies the model: vectors of equal names are comparable.
const Name = "multilingual-e5-small-int8"

// Dimension of the vectors.
const Dimension = 384

const (
	positions   = 512           // of the model: the tokens of one window
	content     = positions - 2 // of them, less <s> and </s>
	batchTokens = 256           // of one run: larger batches leave the processor's cache and are slower
)

// Config of the built-in embedder. The zero value is a good one.
type Config struct {
	// Dir holds the model; default: see [DefaultDir].
	Dir string `yaml:"dir" config:"path"`
	// Threads is how many passages are embedded at once, each on one core;
	// default: the cores that this process may use. Queries do not wait for
	// them: they have as many again.
	Threads int `yaml:"threads"`
}

// Validate implements the convention of leat's components.
func (c Config) Validate() error {
	if c.Threads < 0 {
		return &leat.FieldError{Field: "threads", Msg: fmt.Sprintf("%d is less than 0", c.Threads),
			Hint: "leave it out to use every core"}
	}
	return nil
}

// NewTokenizer loads the tokenizer alone (30 ms, 8 MB), for commands that
// measure text and embed nothing.
func NewTokenizer(cfg Config) (*Tokenizer, error) {
	f, err := openFolder(cfg)
	if err != nil {
		return nil, err
	}
	return f.tokenizer()
}

func (f folder) tokenizer() (*Tokenizer, error) {
	b, err := f.read(tokenizerFile)
	if err != nil {
		return nil, err
	}
	t, err := parseTokenizer(b)
	if err != nil {
		return nil, f.fail(fmt.Errorf("%s: %w", tokenizerFile, err))
	}
	return t, nil
}

// Embedder implements leat.Embedder. A text past the model's window is
// embedded window by window and the vectors are averaged, weighted by tokens.
type Embedder struct {
	tokenizer *Tokenizer
	session   *ort.DynamicAdvancedSession
	model     leat.Model
	threads   int

	// One slot a thread. Queries have slots of their own: one that waited for
	// a passage's run to end would wait for up to 60 ms.
	slots map[leat.Kind]*semaphore.Weighted

	closed atomic.Bool
	using  sync.RWMutex // held for reading while the session is in use
}

// New loads the model (0.2 s, 90 MB of memory and up to 90 MB more when busy).
func New(cfg Config) (*Embedder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f, err := openFolder(cfg)
	if err != nil {
		return nil, err
	}
	e := &Embedder{threads: cfg.Threads}
	if e.threads == 0 {
		e.threads = runtime.GOMAXPROCS(0)
	}
	e.slots = map[leat.Kind]*semaphore.Weighted{
		leat.Passage: semaphore.NewWeighted(int64(e.threads)),
		leat.Query:   semaphore.NewWeighted(int64(e.threads)),
	}
	var load errgroup.Group
	load.Go(func() (err error) {
		e.tokenizer, err = f.tokenizer()
		return err
	})
	load.Go(func() (err error) {
		e.session, err = f.session()
		return err
	})
	if err := load.Wait(); err != nil {
		if e.session != nil {
			err = errors.Join(err, e.session.Destroy())
		}
		return nil, err
	}
	longest := max(e.tokenizer.added(e.Prefix(leat.Passage)), e.tokenizer.added(e.Prefix(leat.Query)))
	e.model = leat.Model{Name: Name, Dimension: Dimension, MaxTokens: content - longest}
	return e, nil
}

// added is the number of tokens that a prefix adds to a text.
func (t *Tokenizer) added(prefix string) int { return t.Count(prefix+"a") - t.Count("a") }

// environment guards ONNX Runtime's, which is one for the process and stays
// until the process ends: closing it would unload code that others may run.
var environment sync.Mutex

func (f folder) session() (_ *ort.DynamicAdvancedSession, err error) {
	if _, err := f.read(graphFile); err != nil { // for its digest: ONNX Runtime reads it by path, to find the weights
		return nil, err
	}
	environment.Lock()
	defer environment.Unlock()
	if !ort.IsInitialized() {
		ort.SetSharedLibraryPath(f.path(libraryFile))
		if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
			return nil, f.fail(err)
		}
	}
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("onnxruntime: %w", err)
	}
	defer func() { err = errors.Join(err, o.Destroy()) }()
	err = errors.Join(
		o.SetIntraOpNumThreads(1), // the calling thread does the work
		o.SetInterOpNumThreads(1),
		o.SetMemPattern(false), // lengths vary: keep no plan for each
	)
	if err != nil {
		return nil, fmt.Errorf("onnxruntime: %w", err)
	}
	s, err := ort.NewDynamicAdvancedSession(f.path(graphFile), []string{"input_ids"}, []string{"embedding"}, o)
	if err != nil {
		return nil, f.fail(err)
	}
	return s, nil
}

// Model implements leat.Embedder. MaxTokens leaves room for the special tokens
// and the longer of the two prefixes.
func (e *Embedder) Model() leat.Model { return e.model }

// Tokenizer returns the model's own.
func (e *Embedder) Tokenizer() *Tokenizer { return e.tokenizer }

// Close implements leat.Embedder. Calls of Embed that are under way fail soon.
func (e *Embedder) Close() error {
	e.closed.Store(true)
	e.using.Lock()
	defer e.using.Unlock()
	if e.session == nil {
		return nil
	}
	s := e.session
	e.session = nil
	return s.Destroy()
}

var errClosed = errors.New("the built-in embedder is closed")

// Prefix is what the model was trained to see before a text of a kind.
func (*Embedder) Prefix(kind leat.Kind) string {
	if kind == leat.Query {
		return "query: "
	}
	return "passage: "
}

// window is what the model reads at once.
type window struct {
	text int // its index
	ids  []int32
}

// Embed implements leat.Embedder.
func (e *Embedder) Embed(ctx context.Context, kind leat.Kind, texts []string) ([][]float32, error) {
	slots := e.slots[kind]
	if slots == nil {
		return nil, fmt.Errorf("embed: unknown kind %q", kind)
	}
	e.using.RLock()
	defer e.using.RUnlock()

	var windows []window
	parts := make([]int, len(texts)) // windows of each text
	for i, text := range texts {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		ids := e.tokenizer.Encode(nil, e.Prefix(kind)+text)
		for w := range slices.Chunk(ids, content) {
			windows = append(windows, window{i, w})
			parts[i]++
		}
	}
	// Windows of one length share a run: no padding. The longest go first, so
	// that the threads end together.
	slices.SortStableFunc(windows, func(a, b window) int { return cmp.Compare(len(b.ids), len(a.ids)) })
	vectors := make([]float32, len(windows)*Dimension)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(e.threads)
	for lo := 0; lo < len(windows); {
		tokens, hi := len(windows[lo].ids)+2, lo+1
		for hi < len(windows) && len(windows[hi].ids)+2 == tokens && (hi-lo+1)*tokens <= batchTokens {
			hi++
		}
		run, out := windows[lo:hi], vectors[lo*Dimension:hi*Dimension]
		g.Go(func() error {
			if err := slots.Acquire(gctx, 1); err != nil {
				return context.Cause(gctx)
			}
			defer slots.Release(1)
			return e.run(gctx, run, out)
		})
		lo = hi
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([][]float32, len(texts))
	for k, w := range windows {
		v := vectors[k*Dimension:][:Dimension:Dimension]
		if parts[w.text] == 1 {
			out[w.text] = v
			continue
		}
		if out[w.text] == nil {
			out[w.text] = make([]float32, Dimension)
		}
		for j, x := range v {
			out[w.text][j] += x * float32(len(w.ids))
		}
	}
	for i, n := range parts {
		if n > 1 {
			normalise(out[i])
		}
	}
	return out, nil
}

// run embeds windows of one length into out, row-major.
func (e *Embedder) run(ctx context.Context, windows []window, out []float32) (err error) {
	if e.closed.Load() || e.session == nil {
		return errClosed
	}
	tokens := len(windows[0].ids) + 2
	ids := make([]int64, 0, len(windows)*tokens)
	for _, w := range windows {
		ids = append(ids, int64(e.tokenizer.bos))
		for _, id := range w.ids {
			ids = append(ids, int64(id))
		}
		ids = append(ids, int64(e.tokenizer.eos))
	}
	var pin runtime.Pinner // the tensors keep both addresses until they are destroyed
	pin.Pin(&ids[0])
	pin.Pin(&out[0])
	defer pin.Unpin()
	in, err := ort.NewTensor(ort.NewShape(int64(len(windows)), int64(tokens)), ids)
	if err != nil {
		return fmt.Errorf("onnxruntime: %w", err)
	}
	defer func() { err = errors.Join(err, in.Destroy()) }()
	res, err := ort.NewTensor(ort.NewShape(int64(len(windows)), Dimension), out)
	if err != nil {
		return fmt.Errorf("onnxruntime: %w", err)
	}
	defer func() { err = errors.Join(err, res.Destroy()) }()
	infer := func() error { return e.session.Run([]ort.Value{in}, []ort.Value{res}) }
	if stepsAside(ctx) {
		err = aside(infer)
	} else {
		err = infer()
	}
	if err != nil {
		return fmt.Errorf("onnxruntime: %w", err)
	}
	return nil
}

type asideKey struct{}

// Aside has the model give way to all else that runs on the machine while it
// embeds with the context.
func Aside(ctx context.Context) context.Context { return context.WithValue(ctx, asideKey{}, true) }

func stepsAside(ctx context.Context) bool { return ctx.Value(asideKey{}) != nil }

func normalise(v []float32) {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	f := float32(1 / math.Sqrt(max(sum, 1e-24)))
	for i := range v {
		v[i] *= f
	}
}
