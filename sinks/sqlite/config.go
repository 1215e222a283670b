package sqlite

import (
	"errors"

	"leat"
)

// Config of the embedded store. Its zero value works.
type Config struct {
	// VectorMemoryMB bounds the vectors a searching process keeps in memory, in
	// MiB; 20,000 chunks of 384 dimensions take 30. Past it every search reads
	// the vectors from the file. Default 256.
	VectorMemoryMB int `yaml:"vector_memory_mb"`
}

const defaultVectorMemoryMB = 256

// Validate returns every mistake as a joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	if c.VectorMemoryMB < 0 {
		errs = append(errs, &leat.FieldError{
			Field: "vector_memory_mb",
			Msg:   "must not be negative",
			Hint:  "leave it out for 256 MiB",
		})
	}
	return errors.Join(errs...)
}

func (c Config) vectorBytes() int {
	if c.VectorMemoryMB == 0 {
		return defaultVectorMemoryMB << 20
	}
	return c.VectorMemoryMB << 20
}
