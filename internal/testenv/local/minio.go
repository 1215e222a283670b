package local

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MinIO is an object store of this process that keeps its data in one folder.
type MinIO struct {
	*Process
	port   int
	Secure bool // it speaks TLS
}

// MinIOUser and MinIOPassword are the access and secret key of its root.
const (
	MinIOUser     = "leat-root"
	MinIOPassword = "leat-root-secret"
)

// FindMinIO finds the program that scripts/servers put into the cache.
func FindMinIO() (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "servers", "minio", "minio")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("minio %w in %s", ErrNotInstalled, filepath.Dir(path))
	}
	return path, nil
}

// StartMinIO runs a new, empty server whose files lie in dir. With the flag
// --certs-dir it speaks TLS. env has variables, such as "NAME=value".
func StartMinIO(ctx context.Context, program, dir string, flags, env []string) (*MinIO, error) {
	for try := 1; ; try++ {
		m, err := startMinIO(ctx, program, dir, flags, env)
		// Someone may have taken the port since it was found free.
		if err == nil || try == 3 || !strings.Contains(err.Error(), "in use") {
			return m, err
		}
	}
}

func startMinIO(ctx context.Context, program, dir string, flags, env []string) (*MinIO, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	m := &MinIO{port: port, Secure: slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--certs-dir") })}
	certs := filepath.Join(dir, "certs")
	if err := os.MkdirAll(certs, 0o755); err != nil {
		return nil, err
	}
	args := []string{"server", "--address", loopback(port)}
	if !m.Secure { // by default it takes what the user's home has
		args = append(args, "--certs-dir", certs)
	}
	args = append(append(args, flags...), filepath.Join(dir, "data"))
	env = append([]string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(),
		"MINIO_ROOT_USER=" + MinIOUser, "MINIO_ROOT_PASSWORD=" + MinIOPassword,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off",
	}, env...)
	m.Process, err = Start(ctx, Spec{
		Name: "minio",
		Command: func() *exec.Cmd {
			cmd := exec.Command(program, args...)
			cmd.Env = env
			return cmd
		},
		Ready: m.ready,
		Log:   filepath.Join(dir, "server.log"),
	})
	return m, err
}

func (m *MinIO) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL()+"/minio/health/ready", nil)
	if err != nil {
		return err
	}
	t := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // only to see that it answers
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Addr is the server's host:port.
func (m *MinIO) Addr() string { return loopback(m.port) }

// URL is the server's address with its scheme.
func (m *MinIO) URL() string {
	if m.Secure {
		return "https://" + m.Addr()
	}
	return "http://" + m.Addr()
}
