package mysql

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strings"

	"leat"
)

// Config of a MySQL or MariaDB source.
type Config struct {
	Address  string      `yaml:"address"` // host:port
	User     string      `yaml:"user"`
	Password leat.Secret `yaml:"password"`
	// ServerID is the replica id under which leat reads the binlog; no other
	// replica of the server may use it. 0 (the default): derived from the
	// source's name, between 2,147,483,648 and 4,294,967,295.
	ServerID uint32        `yaml:"server_id"`
	Tables   []TableConfig `yaml:"tables"`
}

// TableConfig says how the rows of one table become documents.
type TableConfig struct {
	Table     string   `yaml:"table"`      // database.table
	Title     string   `yaml:"title"`      // a column; "": no title
	Body      []string `yaml:"body"`       // columns, joined by blank lines; empty: no body
	Metadata  []string `yaml:"metadata"`   // columns copied to every hit
	MediaType string   `yaml:"media_type"` // of the body; default text/plain
}

// Validate returns every mistake as a joined *leat.FieldError.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, hint, format string, args ...any) {
		errs = append(errs, &leat.FieldError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	if c.Address == "" {
		bad("address", "write host:port, such as 127.0.0.1:3306", "is missing")
	} else if _, _, err := net.SplitHostPort(c.Address); err != nil {
		bad("address", "write host:port, such as 127.0.0.1:3306", "%q is not host:port", c.Address)
	}
	if c.User == "" {
		bad("user", "name a server account that may read the binlog and the tables", "is missing")
	}
	if len(c.Tables) == 0 {
		bad("tables", "name at least one table", "is empty")
	}
	seen := map[string]int{}
	for i, t := range c.Tables {
		at := fmt.Sprintf("tables[%d]", i)
		db, name, ok := strings.Cut(t.Table, ".")
		if !ok || db == "" || name == "" || strings.Contains(name, ".") {
			bad(at+".table", "write database.table, such as store.products", "%q is not database.table", t.Table)
		}
		if j, ok := seen[t.Table]; ok {
			bad(at+".table", "give every table once", "%q is already tables[%d]", t.Table, j)
		}
		seen[t.Table] = i
		if t.Title == "" && len(t.Body) == 0 {
			bad(at, "name a title column or body columns", "has neither title nor body: there would be nothing to find")
		}
		for list, columns := range map[string][]string{"body": t.Body, "metadata": t.Metadata} {
			have := map[string]bool{}
			for j, col := range columns {
				field := fmt.Sprintf("%s.%s[%d]", at, list, j)
				if col == "" {
					bad(field, "name a column", "is empty")
				} else if have[strings.ToLower(col)] {
					bad(field, "give every column once", "%q is there twice", col)
				}
				have[strings.ToLower(col)] = true
			}
		}
	}
	return errors.Join(errs...)
}

// replicaID is the server_id to register with, purpose telling apart the
// connections of one source that may run at the same time.
func (c Config) replicaID(source, purpose string) uint32 {
	if c.ServerID != 0 && purpose == "" {
		return c.ServerID
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "leat/%s/%s", source, purpose)
	return h.Sum32() | 1<<31
}
