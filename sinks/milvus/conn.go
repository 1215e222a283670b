package milvus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	grpcretry "github.com/grpc-ecosystem/go-grpc-middleware/retry"
	"github.com/milvus-io/milvus-proto/go-api/v2/commonpb"
	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-proto/go-api/v2/schemapb"
	"github.com/milvus-io/milvus/client/v2/column"
	"github.com/milvus-io/milvus/client/v2/entity"
	"github.com/milvus-io/milvus/client/v2/milvusclient"
	"github.com/milvus-io/milvus/pkg/v2/log"
	"github.com/milvus-io/milvus/pkg/v2/util/merr"
	"github.com/panjf2000/ants/v2"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"leat"
)

const (
	dialLimit = 10 * time.Second
	callLimit = 2 * time.Minute  // one call, on a server that is busy
	healLimit = 20 * time.Second // for what passes by itself, see passing
)

func init() {
	// What the client's library does as soon as it is linked: it logs to
	// standard output, where data goes, and has a pool of goroutines that
	// nothing uses.
	log.SetLevel(zapcore.FatalLevel + 1)
	ants.Release()
}

// conn is a connection to a server. Safe for concurrent use.
type conn struct {
	client *milvusclient.Client
	at     string // for messages
}

func dial(ctx context.Context, cfg Config, opts ...grpc.DialOption) (*conn, error) {
	hostport, secure, err := cfg.endpoint()
	if err != nil {
		return nil, fmt.Errorf("milvus: %w", err)
	}
	c := &conn{at: "milvus " + hostport}
	config := &milvusclient.ClientConfig{
		Address: hostport, Username: cfg.User, Password: cfg.Password.Reveal(), APIKey: cfg.Token.Reveal(), DBName: cfg.Database,
		DisableConn: true, // the library would leave a connection open whose greeting is refused
		// An outage is reported at once and retried by who called.
		DialOptions: append(opts, grpc.WithDefaultCallOptions(grpcretry.Disable())),
	}
	var tlsConfig *tls.Config
	if secure {
		if tlsConfig, err = cfg.tls(hostport); err != nil {
			return nil, err
		}
		config = config.WithTLSConfig(tlsConfig)
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	// The client says of most failures only that time ran out.
	if err := probe(ctx, hostport, tlsConfig); err != nil {
		return nil, c.wrap(ctx, "connect", err)
	}
	if c.client, err = milvusclient.New(ctx, config); err != nil {
		return nil, c.wrap(ctx, "connect", err)
	}
	hello, err := c.client.GetService().Connect(ctx, &milvuspb.ConnectRequest{
		ClientInfo: &commonpb.ClientInfo{SdkType: "leat", LocalTime: time.Now().String(), User: cfg.User},
	})
	if err := merr.CheckRPCCall(hello, err); err != nil {
		return nil, errors.Join(c.wrap(ctx, "connect", err), c.close())
	}
	return c, nil
}

func (c Config) tls(hostport string) (*tls.Config, error) {
	host, _, _ := net.SplitHostPort(hostport)
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if c.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, leat.Hint(fmt.Errorf("ca_file %s holds no certificate", c.CAFile), "it is a text file with BEGIN CERTIFICATE in it")
	}
	return t, nil
}

// probe connects and hangs up.
func probe(ctx context.Context, hostport string, t *tls.Config) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostport)
	if err != nil {
		return err
	}
	defer c.Close()
	if t == nil {
		return nil
	}
	return tls.Client(c, t).HandshakeContext(ctx)
}

func (c *conn) close() error { return c.client.Close(context.Background()) }

// call runs f, again while its error is one that passes by itself.
func (c *conn) call(ctx context.Context, op string, f func(context.Context) error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 20*time.Millisecond, time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		err := f(ctx)
		if err != nil && (ctx.Err() != nil || !passing(err)) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(healLimit))
	if p := (*backoff.PermanentError)(nil); errors.As(err, &p) {
		err = p.Unwrap()
	}
	return c.wrap(ctx, op, err)
}

// passing reports whether err is what a server says for some seconds after a
// restart, or while an alias moves, though it is well.
func passing(err error) bool {
	for _, s := range []string{
		"failed to get delegator", "can not find client of node", "collection not loaded", "collection not fully loaded",
		"node not match", "no available shard", "channel not available", "channel not found", "service not ready", "is not ready",
	} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

// wrap says where err came from and what the operator can do about it.
func (c *conn) wrap(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w (%w)", ctx.Err(), err) // a cancelled call has an error of gRPC's own
	}
	wrapped := fmt.Errorf("%s: %s: %w", c.at, op, err)
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	s, text := status.Code(err), err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired, has("certificate has expired"):
		return leat.Hint(wrapped, "renew the server's certificate, and compare the clocks of both machines")
	case errors.As(err, &unknown), has("unknown authority"):
		return leat.Hint(wrapped, "set milvus.ca_file to the certificate of the authority that signed the server's")
	case errors.As(err, &host):
		return leat.Hint(wrapped, "write the address with a name that the server's certificate has")
	case has("first record does not look like a TLS handshake"):
		return leat.Hint(wrapped, "the server speaks no TLS: write its address without https:// and leave ca_file out")
	case s == codes.Unauthenticated, has("auth check failure", "password is wrong", "invalid credential"):
		return leat.Hint(wrapped, "set milvus.user and milvus.password, or milvus.token, to an account of the server")
	case s == codes.PermissionDenied, has("privilege not permitted", "permission deny"):
		return leat.Hint(wrapped, "grant the account the rights to create, load, read and write collections and aliases")
	case has("database not found"):
		return leat.Hint(wrapped, "create the database, or set milvus.database to one that is there")
	case has("quota exceeded", "deny to write", "memory limit", "disk quota"):
		return leat.Hint(wrapped, "the server refuses writes: give it memory or disk, or drop collections that nothing needs")
	case op == "connect" && errors.Is(err, context.DeadlineExceeded):
		return leat.Hint(wrapped, "something listens there but does not answer as Milvus: where the server has TLS, write https:// before the address")
	case op == "connect", s == codes.Unavailable:
		return leat.Hint(wrapped, "start the server, or correct milvus.address")
	}
	return wrapped
}

// asItIs has a read take what the server has at hand, without waiting.
const asItIs = 1

// logicalBits of a timestamp, the lowest, count within a millisecond.
const logicalBits = 18

// now is a timestamp of the server: a read at it waits until the server has
// applied all that was acknowledged before (about 200 ms by default, its
// proxy.timeTickInterval), and further reads at it wait no more.
func (c *conn) now(ctx context.Context) (ts uint64, err error) {
	err = c.call(ctx, "ask for the time", func(ctx context.Context) error {
		r, err := c.client.GetService().AllocTimestamp(ctx, &milvuspb.AllocTimestampRequest{})
		ts = r.GetTimestamp()
		return merr.CheckRPCCall(r, err)
	})
	return ts, err
}

func (c *conn) describe(ctx context.Context, collection string) (d *entity.Collection, err error) {
	err = c.call(ctx, "describe collection "+collection, func(ctx context.Context) (err error) {
		d, err = c.client.DescribeCollection(ctx, milvusclient.NewDescribeCollectionOption(collection))
		return err
	})
	return d, err
}

// rows are fields of rows that a query or a search found.
type rows struct {
	n      int
	fields map[string]*schemapb.FieldData
	scores []float32 // of a search
}

func newRows(data []*schemapb.FieldData, n int) rows {
	r := rows{n: n, fields: map[string]*schemapb.FieldData{}}
	for _, f := range data {
		r.fields[f.GetFieldName()] = f
	}
	return r
}

func (r rows) text(field string, i int) string {
	return r.fields[field].GetScalars().GetStringData().GetData()[i]
}

func (r rows) number(field string, i int) int64 {
	return r.fields[field].GetScalars().GetLongData().GetData()[i]
}

// vector of the i-th row.
func (r rows) vector(i int) []float32 {
	v := r.fields[vectorField].GetVectors()
	n := int(v.GetDim())
	return v.GetFloatVector().GetData()[i*n : (i+1)*n]
}

func (r rows) flag(field string, i int) bool {
	return r.fields[field].GetScalars().GetBoolData().GetData()[i]
}

// query reads fields of the rows that the filter matches, in ascending order
// of their keys where there is a limit, as of ts or later. See more for an
// answer below the limit.
func (c *conn) query(ctx context.Context, collection, filter string, ts uint64, limit int, fields ...string) (found rows, err error) {
	err = c.call(ctx, "read", func(ctx context.Context) error {
		found, err = c.queryOnce(ctx, collection, filter, ts, limit, fields...)
		return err
	})
	return found, err
}

// more reports whether rows may follow an answer of n: rows that are there
// twice, in a segment and in what it is made from, count for the limit and come
// once.
func more(n, limit int) bool { return n >= limit/2 }

func (c *conn) queryOnce(ctx context.Context, collection, filter string, ts uint64, limit int, fields ...string) (rows, error) {
	opt := milvusclient.NewQueryOption(collection).WithFilter(filter).WithOutputFields(fields...)
	if limit > 0 {
		opt = opt.WithLimit(limit)
	}
	req, err := opt.Request()
	if err != nil {
		return rows{}, err
	}
	req.UseDefaultConsistency, req.ConsistencyLevel, req.GuaranteeTimestamp = false, commonpb.ConsistencyLevel_Customized, ts
	r, err := c.client.GetService().Query(ctx, req)
	if err := merr.CheckRPCCall(r, err); err != nil {
		return rows{}, err
	}
	n := 0
	for _, f := range r.GetFieldsData() {
		if f.GetFieldName() == keyField {
			n = len(f.GetScalars().GetStringData().GetData())
		}
	}
	return newRows(r.GetFieldsData(), n), nil
}

// nearest reads fields of the k rows nearest to the vector that the filter
// matches, nearest first, as of ts or later.
func (c *conn) nearest(ctx context.Context, collection string, vector []float32, k int, filter string, ts uint64, fields ...string) (found rows, err error) {
	req, err := milvusclient.NewSearchOption(collection, k, []entity.Vector{entity.FloatVector(vector)}).
		WithANNSField(vectorField).WithFilter(filter).WithOutputFields(fields...).
		WithSearchParam("ef", fmt.Sprint(min(max(2*k, minEF), maxEF))).Request()
	if err != nil {
		return rows{}, err
	}
	req.UseDefaultConsistency, req.ConsistencyLevel, req.GuaranteeTimestamp = false, commonpb.ConsistencyLevel_Customized, ts
	err = c.call(ctx, "search", func(ctx context.Context) error {
		r, err := c.client.GetService().Search(ctx, req)
		if err := merr.CheckRPCCall(r, err); err != nil {
			return err
		}
		scores := r.GetResults().GetScores()
		found = newRows(r.GetResults().GetFieldsData(), len(scores))
		found.scores = scores
		return nil
	})
	return found, err
}

func (c *conn) upsert(ctx context.Context, collection string, columns []column.Column) error {
	return c.call(ctx, "write", func(ctx context.Context) error {
		_, err := c.client.Upsert(ctx, milvusclient.NewColumnBasedInsertOption(collection, columns...))
		return err
	})
}

// remove deletes rows by their keys, in no particular order.
func (c *conn) remove(ctx context.Context, collection string, keys []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for part := range keysIn(keys) {
		g.Go(func() error {
			return c.call(ctx, "delete", func(ctx context.Context) error {
				_, err := c.client.Delete(ctx, milvusclient.NewDeleteOption(collection).WithExpr(part))
				return err
			})
		})
	}
	return g.Wait()
}

// keysIn gives the filters for rows with the keys, each of which one call may carry.
func keysIn(keys []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(keys) > 0 {
			var f strings.Builder
			f.WriteString(keyField + " in [")
			n := 0
			for ; n < len(keys) && n < batchRows && f.Len() < batchKeyBytes; n++ {
				if n > 0 {
					f.WriteByte(',')
				}
				f.WriteString(strconv.Quote(keys[n]))
			}
			f.WriteByte(']')
			if !yield(f.String()) {
				return
			}
			keys = keys[n:]
		}
	}
}
