package embeddertest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"leat"
)

// Reference is the built-in model's reference engine, an independent program
// in C on one core that scripts/model/reference.sh builds. Not safe for
// concurrent use.
type Reference struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// StartReference starts the engine in dir. Close it.
func StartReference(dir string) (*Reference, error) {
	r := &Reference{cmd: exec.Command(filepath.Join(dir, "reference"), filepath.Join(dir, "e5-small-q4.bin"))}
	r.cmd.Stderr = os.Stderr
	in, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("reference engine: %w", err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("reference engine: %w", err)
	}
	r.in, r.out = in, bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("reference engine: %w", err)
	}
	return r, nil
}

// Embed returns the token ids of the bare text (no prefix, no special tokens),
// the vector of the text as kind, and how long that took by the clock and of
// the processor's time. The engine reads
// text as far as its first NUL, and "<s>" and its like as special tokens.
func (r *Reference) Embed(kind leat.Kind, text string) (ids []int32, vector []float32, wall, cpu time.Duration, err error) {
	head := []byte{0, 0, 0, 0, 0}
	if kind == leat.Query {
		head[0] = 1
	}
	binary.LittleEndian.PutUint32(head[1:], uint32(len(text)))
	if _, err := io.WriteString(r.in, string(head)+text); err != nil {
		return nil, nil, 0, 0, fmt.Errorf("reference engine: %w", err)
	}
	var n uint32
	var ns [2]uint64
	vector = make([]float32, 384)
	read := func(v any) {
		if err == nil {
			err = binary.Read(r.out, binary.LittleEndian, v)
		}
	}
	read(&n)
	ids = make([]int32, n)
	read(ids)
	read(&ns)
	read(vector)
	if err != nil {
		return nil, nil, 0, 0, fmt.Errorf("reference engine: %w", err)
	}
	return ids, vector, time.Duration(ns[0]), time.Duration(ns[1]), nil
}

// Close ends the engine.
func (r *Reference) Close() error {
	if err := r.in.Close(); err != nil {
		return fmt.Errorf("reference engine: %w", err)
	}
	return r.cmd.Wait()
}
