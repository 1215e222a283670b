package builtin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"leat"
)

// Files of the model's folder, as scripts/model/get.sh makes it.
const (
	graphFile     = "model.onnx"
	weightsFile   = "model.onnx.data" // found by ONNX Runtime beside the graph
	tokenizerFile = "tokenizer.bin"
	libraryFile   = "libonnxruntime.so.1.24.1"
	manifestFile  = "MANIFEST"
)

// DefaultDir is where `make model` puts the model:
// ${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}/model/multilingual-e5-small-int8.
func DefaultDir() (string, error) {
	cache := os.Getenv("LEAT_CACHE")
	if cache == "" {
		user := os.Getenv("XDG_CACHE_HOME")
		if user == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", leat.Hint(fmt.Errorf("find the model: %w", err), "set HOME or LEAT_CACHE, or embedder.builtin.dir in pipeline.yaml")
			}
			user = filepath.Join(home, ".cache")
		}
		cache = filepath.Join(user, "leat")
	}
	return filepath.Join(cache, "model", Name), nil
}

// folder is a model's folder with its digests (hex SHA-256) by file.
type folder struct {
	dir     string
	digests map[string]string
}

func openFolder(cfg Config) (folder, error) {
	f := folder{dir: cfg.Dir, digests: map[string]string{}}
	if f.dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return f, err
		}
		f.dir = dir
	}
	b, err := os.ReadFile(f.path(manifestFile))
	if err != nil {
		return f, f.fail(err)
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if digest, name, ok := strings.Cut(s.Text(), "  "); ok {
			f.digests[name] = digest
		}
	}
	for _, name := range []string{graphFile, weightsFile, tokenizerFile, libraryFile} {
		if f.digests[name] == "" {
			return f, f.fail(fmt.Errorf("%s does not name %s", manifestFile, name))
		}
		if _, err := os.Stat(f.path(name)); err != nil {
			return f, f.fail(err)
		}
	}
	return f, nil
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

// read returns a file's content if it has the manifest's digest.
func (f folder) read(name string) ([]byte, error) {
	b, err := os.ReadFile(f.path(name))
	if err != nil {
		return nil, f.fail(err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != f.digests[name] {
		return nil, f.fail(fmt.Errorf("%s is damaged: its SHA-256 is not the one in %s", name, manifestFile))
	}
	return b, nil
}

// fail says that the model cannot be used, and what to do.
func (f folder) fail(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("the built-in model is not in %s: %w", f.dir, err)
	} else {
		err = fmt.Errorf("the built-in model in %s cannot be loaded: %w", f.dir, err)
	}
	return leat.Hint(err, "run `make model` in leat's source folder, which gets it once (110 MB), or set embedder.builtin.dir or LEAT_CACHE to where it is")
}
