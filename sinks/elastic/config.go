package elastic

import (
	"errors"
	"fmt"
	"net/url"

	"leat"
)

// Config of an Elasticsearch cluster. URLs are needed.
type Config struct {
	// URLs of nodes, such as "https://es1:9200"; requests take turns between them.
	URLs []string `yaml:"urls"`
	// User and Password, or APIKey (in the encoded form that Elasticsearch
	// shows); default: none.
	User     string      `yaml:"user"`
	Password leat.Secret `yaml:"password"`
	APIKey   leat.Secret `yaml:"api_key"`
	// CAFile holds the certificates (PEM) of the authorities that signed the
	// cluster's; default: those that the system trusts.
	CAFile string `yaml:"ca_file" config:"path"`
	// Shards of an index that is created; default 1, which serves some ten
	// million chunks.
	Shards int `yaml:"shards"`
	// Replicas of each shard of an index that is created, each on another node;
	// default 1. A cluster of one node cannot place any and is yellow, not green.
	Replicas *int `yaml:"replicas"`
}

// Validate returns every mistake as a joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	const urlHint = `write a node's address, such as "https://localhost:9200"`
	if len(c.URLs) == 0 {
		bad("urls", urlHint, "is empty")
	}
	for i, s := range c.URLs {
		field := fmt.Sprintf("urls[%d]", i)
		switch u, err := url.Parse(s); {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			bad(field, urlHint, "is not an http or https URL")
		case u.User != nil:
			bad(field, "use user and password", "holds a password")
		}
	}
	if c.APIKey != "" && (c.User != "" || c.Password != "") {
		bad("api_key", "leave one of them out", "is there beside user and password")
	}
	if c.User == "" && c.Password != "" {
		bad("user", "name the account whose password this is", "is missing")
	}
	if c.Shards < 0 || c.Shards > maxShards {
		bad("shards", "leave it out for 1", "%d is not between 1 and %d", c.Shards, maxShards)
	}
	if c.Replicas != nil && *c.Replicas < 0 {
		bad("replicas", "leave it out for 1", "%d is less than 0", *c.Replicas)
	}
	return errors.Join(errs...)
}

const maxShards = 1024 // Elasticsearch's own limit

func (c Config) shards() int { return max(1, c.Shards) }

func (c Config) replicas() int {
	if c.Replicas == nil {
		return 1
	}
	return *c.Replicas
}
