package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"leat"
)

const (
	// answerLimit is how long a request may wait for the head of its answer.
	answerLimit = 30 * time.Second
	attempts    = 3 // of a request that a busy or broken server fails
)

// connect makes the client. It opens no connection.
func (s *Source) connect() error {
	u, err := s.cfg.url()
	if err != nil {
		return err
	}
	secure := u.Scheme == "https"
	if s.transport, err = minio.DefaultTransport(secure); err != nil {
		return err
	}
	s.transport.ResponseHeaderTimeout = answerLimit
	if s.cfg.CAFile != "" {
		pem, err := os.ReadFile(s.cfg.CAFile)
		if err != nil {
			return leat.Hint(fmt.Errorf("ca_file: %w", err), "make the file readable, or correct ca_file")
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return leat.Hint(fmt.Errorf("ca_file: %s holds no certificate", s.cfg.CAFile), "give a file of certificates in PEM")
		}
		s.transport.TLSClientConfig.RootCAs = pool
	}
	s.client, err = minio.New(u.Host, &minio.Options{
		Creds:      credentials.NewStaticV4(s.cfg.AccessKey, s.cfg.SecretKey.Reveal(), ""),
		Secure:     secure,
		Transport:  s.transport,
		Region:     s.cfg.Region,
		MaxRetries: attempts,
	})
	return err
}

// Codes of answers. Those to HEAD requests have no body: there a server may
// tell no more than the status.
const (
	codeNoSuchBucket = "NoSuchBucket"
	codeAccessDenied = "AccessDenied"
)

// status is the HTTP status of a server's answer that is an error, or 0.
func status(err error) int { return minio.ToErrorResponse(err).StatusCode }

// absent reports whether err says that there is no such object.
func absent(err error) bool {
	return status(err) == http.StatusNotFound && minio.ToErrorResponse(err).Code != codeNoSuchBucket
}

// ofObject reports whether err may speak of the one object that was asked for:
// what the server refuses and does not ask to try again.
func ofObject(err error) bool {
	switch c := status(err); c {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusNotFound:
		return false
	default:
		return c >= 400 && c < 500
	}
}

// probe tries what every session does: list the bucket and look at an object.
func (s *Source) probe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.cfg.Prefix, Recursive: true, MaxKeys: 1}) {
		if o.Err != nil {
			return s.explain("list the bucket", o.Err)
		}
		break
	}
	// Who may read an object is told that there is none.
	_, err := s.client.StatObject(ctx, s.cfg.Bucket, s.cfg.Prefix+"leat-asks-whether-it-may-read", minio.StatObjectOptions{})
	if err != nil && !absent(err) {
		return s.explain("look at objects", err)
	}
	return ctx.Err()
}

// exists fails unless the bucket is there: a bucket that is gone answers like
// one whose every object was deleted.
func (s *Source) exists(ctx context.Context) error {
	there, err := s.client.BucketExists(ctx, s.cfg.Bucket)
	if err == nil && !there {
		err = minio.ErrorResponse{Code: codeNoSuchBucket, StatusCode: http.StatusNotFound, Message: "the bucket does not exist"}
	}
	if err != nil {
		return s.explain("find the bucket", err)
	}
	return nil
}

// explain says what failed, where, and what can be done about it.
func (s *Source) explain(doing string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // without the request's address and what is signed in it
	}
	where := s.cfg.Endpoint + "/" + s.cfg.Bucket
	wrapped := fmt.Errorf("s3 %s: %s: %s: %w", s.name, where, doing, err)
	answer := minio.ToErrorResponse(err)
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		record    tls.RecordHeaderError
		network   net.Error
	)
	switch {
	case answer.Code == codeNoSuchBucket:
		return leat.Hint(wrapped, "make the bucket %s, or correct bucket; its documents stay in the index until it is there", s.cfg.Bucket)
	case answer.Code == "InvalidAccessKeyId":
		return leat.Hint(wrapped, "the server does not know the access key: correct access_key")
	case answer.Code == "SignatureDoesNotMatch":
		return leat.Hint(wrapped, "the secret is not that of the access key: correct secret_key")
	case answer.Code == codeAccessDenied, answer.StatusCode == http.StatusForbidden && answer.Code == "":
		return leat.Hint(wrapped, "let the access key %s do s3:GetBucketLocation, s3:ListBucket and s3:ListenBucketNotification on the bucket and s3:GetObject on its objects", s.cfg.AccessKey)
	case answer.Code == "RequestTimeTooSkewed":
		return leat.Hint(wrapped, "set this machine's clock, or the server's: they are more than 15 minutes apart")
	case answer.Code == "InvalidRegion", answer.Code == "AuthorizationHeaderMalformed":
		return leat.Hint(wrapped, "set region to the bucket's own, or leave it out")
	case strings.Contains(answer.Message, "HTTP request to an HTTPS server"):
		return leat.Hint(wrapped, "write https:// before the endpoint")
	case errors.As(err, &authority):
		return leat.Hint(wrapped, "name a file with the certificate authority of the server in ca_file")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return leat.Hint(wrapped, "renew the server's certificate, or set this machine's clock")
	case errors.As(err, &hostname):
		return leat.Hint(wrapped, "write the endpoint with a name that the server's certificate holds")
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return leat.Hint(wrapped, "the server does not speak TLS: write http:// before the endpoint")
	case answer.Code != "":
		return leat.Hint(wrapped, "the server answered %s; see its log; it is tried again by itself", answer.Code)
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errSilent):
		return leat.Hint(wrapped, "see whether the server runs and can be reached at this endpoint; it is tried again by itself")
	}
	return leat.Hint(wrapped, "see the server's log; it is tried again by itself")
}
