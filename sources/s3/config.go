package s3

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"leat"
	"leat/sources/listing"
)

// Config of a bucket.
type Config struct {
	// Endpoint is the server's URL, such as http://127.0.0.1:9000; without a
	// scheme it is https.
	Endpoint string `yaml:"endpoint"`
	// Region of the bucket; the server is asked if it is not given.
	Region    string      `yaml:"region"`
	AccessKey string      `yaml:"access_key"`
	SecretKey leat.Secret `yaml:"secret_key"`
	Bucket    string      `yaml:"bucket"`
	// Prefix of the keys of the objects that are documents. Default: all are.
	Prefix string `yaml:"prefix"`
	// Include are glob patterns of the objects that are documents; all are if
	// there is none. A pattern with a slash is matched with the key below the
	// last slash of the prefix, one without with what follows the key's last
	// slash; ** stands for any number of folders, {a,b} for one of several:
	// "*.md", "handbook/**/*.{md,html}".
	Include []string `yaml:"include"`
	// Exclude are glob patterns of objects and folders to leave out, besides
	// hidden files, what editors and downloads leave while they work, and lock
	// files: "drafts", "*.log", "archive/2019-*".
	Exclude []string `yaml:"exclude"`
	// Reconcile is how often the whole bucket is compared with the index, which
	// finds what notifications have missed. Default 5m.
	Reconcile time.Duration `yaml:"reconcile"`
	// CAFile holds, in PEM, the certificate authorities that the server's
	// certificate may come from, in place of the system's. A relative path is
	// relative to pipeline.yaml.
	CAFile string `yaml:"ca_file" config:"path"`
}

const defaultReconcile = 5 * time.Minute

// Validate reports all mistakes as joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	u, err := c.url()
	switch {
	case c.Endpoint == "":
		bad("endpoint", "give the server's URL, such as http://127.0.0.1:9000", "is required")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		bad("endpoint", "give scheme, host and port only, such as http://127.0.0.1:9000; bucket and credentials have keys of their own", "%q is not the URL of a server", c.Endpoint)
	case c.CAFile != "" && u.Scheme == "http":
		bad("ca_file", "leave it out, or make it an https endpoint", "is of no use without https")
	}
	for _, f := range []struct{ field, value, hint string }{
		{"access_key", c.AccessKey, "give the access key of an account that may list and read the bucket"},
		{"secret_key", c.SecretKey.Reveal(), "give the secret of the access key, or secret_key_file"},
		{"bucket", c.Bucket, "name the bucket with the documents"},
	} {
		if f.value == "" {
			bad(f.field, f.hint, "is required")
		}
	}
	if err := s3utils.CheckValidBucketName(c.Bucket); c.Bucket != "" && err != nil {
		bad("bucket", "use 3 to 63 letters, digits, dots and hyphens; keys have prefix", "%q cannot name a bucket", c.Bucket)
	}
	if err := s3utils.CheckValidObjectNamePrefix(c.Prefix); err != nil {
		bad("prefix", "", "no key can begin with it: at most 1,024 bytes of UTF-8")
	}
	errs = append(errs, c.selection().Validate()...)
	if c.Reconcile < 0 || c.Reconcile > 0 && c.Reconcile < time.Second {
		bad("reconcile", "", "%s is less than 1s", c.Reconcile)
	}
	return errors.Join(errs...)
}

func (c Config) url() (*url.URL, error) {
	if !strings.Contains(c.Endpoint, "://") {
		return url.Parse("https://" + c.Endpoint)
	}
	return url.Parse(c.Endpoint)
}

func (c Config) selection() listing.Selection {
	return listing.Selection{Include: c.Include, Exclude: c.Exclude}
}

// selects reports whether an object is a document as far as its key tells. One
// that ends with a slash stands for a folder, as consoles make them.
func (c Config) selects(key string) bool {
	folder := c.Prefix[:strings.LastIndexByte(c.Prefix, '/')+1]
	return strings.HasPrefix(key, c.Prefix) && !strings.HasSuffix(key, "/") && c.selection().Selects(key[len(folder):])
}
