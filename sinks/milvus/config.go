package milvus

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"leat"
)

// Config of a Milvus server, from 2.3 on. Only Address is needed.
type Config struct {
	// Address is host:port, or https://host:port for TLS. Default port 19530.
	Address string `yaml:"address"`
	// User and Password where the server asks for them; default: none.
	User     string      `yaml:"user"`
	Password leat.Secret `yaml:"password"`
	// Token is an API key, in place of user and password; default: none.
	Token leat.Secret `yaml:"token"`
	// Database to use; default: the server's own.
	Database string `yaml:"database"`
	// CAFile holds the certificates, in PEM, that the server's is checked
	// with; default: the machine's.
	CAFile string `yaml:"ca_file" config:"path"`
}

const defaultPort = "19530"

// Validate returns every mistake as a joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	const hint = "write host:port, such as 127.0.0.1:19530, or https://host:port for TLS"
	if c.Address == "" {
		bad("address", hint, "is missing")
	} else if _, _, err := c.endpoint(); err != nil {
		bad("address", hint, "%q is not host:port: %v", c.Address, err)
	}
	if c.Token != "" && (c.User != "" || c.Password != "") {
		bad("token", "keep one of them", "stands beside user and password")
	}
	if c.Password != "" && c.User == "" {
		bad("user", "name the user whose password it is", "is missing")
	}
	if c.CAFile != "" && strings.HasPrefix(c.Address, "http://") {
		bad("ca_file", "write https:// in the address", "stands beside an address without TLS")
	}
	return errors.Join(errs...)
}

// endpoint is the server's host:port, and whether it speaks TLS.
func (c Config) endpoint() (hostport string, tls bool, err error) {
	at := c.Address
	if scheme, rest, ok := strings.Cut(at, "://"); ok {
		u, err := url.Parse(at)
		switch {
		case err != nil:
			return "", false, errors.Unwrap(err)
		case scheme != "http" && scheme != "https":
			return "", false, fmt.Errorf("%q is neither http nor https", scheme)
		case u.User != nil:
			return "", false, errors.New("it holds a password")
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
			return "", false, fmt.Errorf("there is something behind the host: %q", strings.TrimPrefix(rest, u.Host))
		}
		at, tls = u.Host, scheme == "https"
	}
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		if host, port = strings.Trim(at, "[]"), defaultPort; strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", false, err
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", false, fmt.Errorf("%q is not a port", port)
	}
	if host == "" || strings.ContainsAny(host, "/ ") {
		return "", false, errors.New("there is no host")
	}
	return net.JoinHostPort(host, port), tls || c.CAFile != "", nil
}
