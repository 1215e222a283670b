package elastic

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"

	"leat"
)

// client sends requests and makes errors of what is refused.
type client struct {
	es   *elastictransport.Client
	http *http.Transport
	urls []string // for messages
}

// How long a request may take, and one that brings much. A node that hangs for
// longer is taken for dead, and the next request goes to another.
const (
	requestLimit = time.Minute
	bulkLimit    = 5 * time.Minute
)

func newClient(cfg Config) (*client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &client{http: http.DefaultTransport.(*http.Transport).Clone(), urls: cfg.URLs}
	c.http.MaxIdleConnsPerHost = 16
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, leat.Hint(fmt.Errorf("ca_file: %w", err), "name a file with the authority's certificate in PEM form")
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, leat.Hint(fmt.Errorf("ca_file %s holds no certificate", cfg.CAFile), "name a file with the authority's certificate in PEM form")
		}
		c.http.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return c, c.over(cfg, c.http)
}

// over makes the client send by a transport.
func (c *client) over(cfg Config, transport http.RoundTripper) (err error) {
	var urls []*url.URL
	for _, s := range cfg.URLs {
		u, err := url.Parse(s)
		if err != nil {
			return err
		}
		urls = append(urls, u)
	}
	// go-elasticsearch's client would bring its whole typed API, which takes
	// minutes to compile; its transport is what is used of it.
	options := []elastictransport.Option{
		elastictransport.WithUserAgent("leat"), elastictransport.WithURLs(urls...), elastictransport.WithTransport(transport),
		// Everything that is sent may be sent twice.
		elastictransport.WithRetryOnStatus(http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
		elastictransport.WithRetryOnError(func(r *http.Request, err error) bool { return r.Context().Err() == nil && !isTLS(err) }),
		elastictransport.WithRetryBackoff(func(attempt int) time.Duration { return 50 * time.Millisecond << attempt }),
	}
	switch {
	case cfg.APIKey != "":
		options = append(options, elastictransport.WithAPIKey(cfg.APIKey.Reveal()))
	case cfg.User != "":
		options = append(options, elastictransport.WithBasicAuth(cfg.User, cfg.Password.Reveal()))
	}
	c.es, err = elastictransport.NewClient(options...)
	return err
}

// isTLS tells that two sides do not agree on who they are.
func isTLS(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &certificate) || errors.As(err, &record)
}

func (c *client) close() {
	_ = c.es.Close(context.Background()) // nodes thought dead are no longer tried
	c.http.CloseIdleConnections()
}

// refusal is an error that Elasticsearch answered with.
type refusal struct {
	Status       int
	Type, Reason string
}

func (r *refusal) Error() string {
	if r.Type == "" {
		return fmt.Sprintf("status %d: %s", r.Status, r.Reason)
	}
	return fmt.Sprintf("%s (%d): %s", r.Type, r.Status, r.Reason)
}

// is reports whether err is a refusal of this type.
func is(err error, kind string) bool {
	var r *refusal
	return errors.As(err, &r) && r.Type == kind
}

// call sends in (nil, bytes or what is made JSON) and decodes the answer into
// out unless that is nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	limit, contentType := requestLimit, "application/json"
	switch in := in.(type) {
	case nil:
	case []byte:
		body, limit, contentType = bytes.NewReader(in), bulkLimit, "application/x-ndjson"
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fail := func(err error) error {
		if ctx.Err() != nil && asked.Err() == nil {
			return leat.Hint(fmt.Errorf("no answer within %v", limit), "Elasticsearch at %s hangs or has far too much work: look at its load and its log",
				strings.Join(c.urls, ", "))
		}
		return c.explain(err)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := c.es.Perform(req)
	if err != nil {
		return fail(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return c.explain(refused(res))
	}
	if res.Header.Get("X-Elastic-Product") != "Elasticsearch" {
		return leat.Hint(errors.New("the server is not Elasticsearch"), "%s is something else: leat needs Elasticsearch 8", strings.Join(c.urls, ", "))
	}
	if out == nil {
		_, err = io.Copy(io.Discard, res.Body)
	} else {
		err = json.NewDecoder(res.Body).Decode(out)
	}
	if err != nil {
		return fail(fmt.Errorf("read the answer: %w", err))
	}
	return nil
}

// refused reads an error answer.
func refused(res *http.Response) *refusal {
	r := &refusal{Status: res.StatusCode}
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var answer struct {
		Error struct {
			Type, Reason string
			RootCause    []struct{ Type, Reason string } `json:"root_cause"`
			CausedBy     struct{ Reason string }         `json:"caused_by"`
		}
	}
	if json.Unmarshal(b, &answer) != nil || answer.Error.Type == "" {
		r.Reason = strings.TrimSpace(string(b[:min(len(b), 200)]))
		return r
	}
	r.Type, r.Reason = answer.Error.Type, answer.Error.Reason
	// A search that fails on all shards says why only below.
	if rc := answer.Error.RootCause; r.Type == "search_phase_execution_exception" && len(rc) > 0 {
		r.Type, r.Reason = rc[0].Type, rc[0].Reason
	}
	if answer.Error.CausedBy.Reason != "" {
		r.Reason += ": " + answer.Error.CausedBy.Reason
	}
	return r
}

// explain adds what the operator can do about an error.
func (c *client) explain(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return leat.Hint(err, "%s", r.hint())
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	at := strings.Join(c.urls, ", ")
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		return leat.Hint(err, "the certificate of %s is signed by an authority that is not trusted here: set ca_file to the authority's certificate", at)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return leat.Hint(err, "renew the certificate of %s, and check this machine's clock", at)
	case errors.As(err, &invalid):
		return leat.Hint(err, "the certificate of %s cannot be used: replace it", at)
	case errors.As(err, &name):
		return leat.Hint(err, "write the host in urls as the certificate names it, or issue one for the name used")
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return leat.Hint(err, "%s speaks plain HTTP: write http:// in urls", at)
	}
	return leat.Hint(fmt.Errorf("ask Elasticsearch at %s: %w", at, err), "check that it runs and can be reached from here; where it asks for TLS, write https:// in urls")
}

// hint is what the operator can do about a refusal.
func (r *refusal) hint() string {
	switch {
	case r.Status == http.StatusUnauthorized:
		return "check user and password, or api_key"
	case r.diskFull():
		return "the disk of an Elasticsearch node is full: make room or add a node. Elasticsearch lifts the block by itself once there is room; if it does not, set index.blocks.read_only_allow_delete to null"
	case r.Type == "cluster_block_exception":
		return "the index or the cluster is blocked by a setting (index.blocks.*, cluster.blocks.*) or is starting"
	case r.Status == http.StatusForbidden:
		return "give the account what leat needs: to write, " + writerNeeds + "; to search, " + readerNeeds
	case r.Type == "index_not_found_exception":
		return "the index is not there: start `leat run`, which creates it; if it was removed while leat ran, restart leat and run `leat reindex`"
	case r.Status == http.StatusRequestEntityTooLarge:
		return "raise http.max_content_length of Elasticsearch above the size of the document"
	case r.Status == http.StatusTooManyRequests:
		return "Elasticsearch has more work than it can take: it is tried again. If this goes on, give it more CPU or nodes"
	case r.Status >= 500:
		return "look at the cluster's health (GET _cluster/health) and its log"
	}
	return "Elasticsearch refused this: look at its log"
}

// What accounts need, by Elasticsearch's names. NAME is the pipeline's.
const (
	writerNeeds = "monitor and manage_index_templates of the cluster and read, write and manage of NAME and NAME-g*"
	readerNeeds = "read, view_index_metadata and maintenance of NAME and NAME-g*"
)

// diskFull tells the block of the flood-stage watermark.
func (r *refusal) diskFull() bool {
	return r.Type == "cluster_block_exception" &&
		(strings.Contains(r.Reason, "flood-stage") || strings.Contains(r.Reason, "read-only-allow-delete"))
}

// heals reports whether the same request may be accepted later.
func (r *refusal) heals() bool {
	switch r.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return false
	}
	return true
}

// path makes the path of a request.
func path(elements ...string) string {
	var b strings.Builder
	for _, e := range elements {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(e))
	}
	return b.String()
}
