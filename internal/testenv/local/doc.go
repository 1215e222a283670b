// Package local runs real servers on this machine, each as a child of this
// process with its own directory and loopback port, from what scripts/servers
// put into the cache. Tests use it through internal/testenv, the demo directly.
package local

import (
	"os"
	"path/filepath"
)

// Cache is the folder where servers and models are kept: $LEAT_CACHE, by
// default leat in the user's cache directory.
func Cache() (string, error) {
	if dir := os.Getenv("LEAT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "leat"), nil
}
