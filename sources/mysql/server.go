package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"leat"
)

// Error codes of the server that have a remedy of their own.
const (
	erDBAccessDenied    = 1044
	erAccessDenied      = 1045
	erBadDB             = 1049
	erParse             = 1064
	erTableAccessDenied = 1142
	erColumnDenied      = 1143
	erNoSuchTable       = 1146
	erSpecificDenied    = 1227
	erBinlogRead        = 1236
	erTableDefChanged   = 1412
	erAccountLocked     = 3118
)

// conn is a connection for queries. Its strings come in their columns' own
// charsets, as in the binlog, and its times in UTC. Not safe for concurrent use.
type conn struct {
	*client.Conn
	server *server
}

// server is what leat knows of the server it reads.
type server struct {
	flavor    string            // "mysql" or "mariadb"
	id        string            // server_uuid, or MariaDB's server_id
	charsetOf map[uint64]string // by collation id
	vars      map[string]string // lower-case names, upper-case values
}

func (s *server) mariadb() bool { return s.flavor == gomysql.MariaDBFlavor }

// connect opens a connection and reads what the server is.
func (s *Source) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	d := dialer{ctx: ctx}
	defer func() { d.release() }()
	raw, err := client.ConnectWithDialer(ctx, "tcp", s.cfg.Address, s.cfg.User, s.cfg.Password.Reveal(), "", d.dial)
	if err != nil {
		return nil, s.explain(causeOf(ctx, err), "connecting to")
	}
	c := &conn{Conn: raw, server: &server{flavor: gomysql.MySQLFlavor}}
	if strings.Contains(raw.GetServerVersion(), "MariaDB") {
		c.server.flavor = gomysql.MariaDBFlavor
	}
	timeout := "max_execution_time=0"
	if c.server.mariadb() {
		timeout = "max_statement_time=0"
	}
	for _, q := range []string{
		"SET NAMES utf8mb4",
		"SET SESSION character_set_results=NULL, time_zone='+00:00', sql_mode='', " + timeout,
		"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
	} {
		if _, err := c.do(ctx, q); err != nil {
			c.Close()
			return nil, s.explain(err, "preparing the session")
		}
	}
	return c, nil
}

// queryTimeout bounds statements that answer at once: a server that hangs
// must not hang leat.
const queryTimeout = 20 * time.Second

// dialer makes connections that the end of ctx closes, also in the middle of
// what go-mysql would wait for without end.
type dialer struct {
	ctx  context.Context
	stop func() bool
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: queryTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.stop = context.AfterFunc(d.ctx, func() { c.Close() })
	return dialed{c}, nil
}

// dialed is a connection of a dialer. Once it is closed, its reads need no
// deadline: where go-mysql is refused one, it closes the connection anew beside
// its own goroutine that still reads, and the two race.
type dialed struct{ net.Conn }

func (c dialed) SetReadDeadline(t time.Time) error {
	if err := c.Conn.SetReadDeadline(t); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// release lets the connection outlive ctx.
func (d *dialer) release() {
	if d.stop != nil {
		d.stop()
	}
}

// do runs a statement of few rows; the end of ctx breaks the connection.
func (c *conn) do(ctx context.Context, query string) (*gomysql.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	defer c.until(ctx)()
	r, err := c.Execute(query)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return r, nil
}

// until breaks the connection's reads and writes when ctx ends, until the
// returned function is called.
func (c *conn) until(ctx context.Context) (release func()) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// causeOf is the server's own error without go-mysql's traces, or ctx's.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		var e *gomysql.MyError
		if errors.As(err, &e) {
			return e
		}
		err = inner
	}
}

// rows runs a query of few rows and returns its values as text, NULL as "".
func (c *conn) rows(ctx context.Context, query string) ([][]string, error) {
	r, err := c.do(ctx, query)
	if err != nil {
		return nil, err
	}
	out := make([][]string, r.RowNumber())
	for i := range out {
		out[i] = make([]string, r.ColumnNumber())
		for j := range out[i] {
			if out[i][j], err = r.GetString(i, j); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// inspect fills c.server.
func (c *conn) inspect(ctx context.Context) error {
	s := c.server
	rows, err := c.rows(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin','binlog_format','binlog_row_image','binlog_row_metadata',"+
		"'binlog_row_value_options','gtid_mode','gtid_purged','server_uuid','server_id')")
	if err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	s.vars = map[string]string{}
	for _, r := range rows {
		s.vars[strings.ToLower(r[0])] = r[1]
	}
	if s.id = s.vars["server_uuid"]; s.mariadb() {
		s.id = "server_id " + s.vars["server_id"]
	}
	s.charsetOf = map[uint64]string{}
	query := "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL"
	if s.mariadb() { // its newer collations belong to several charsets
		query = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL"
	}
	if rows, err = c.rows(ctx, query); err != nil {
		return fmt.Errorf("reading the server's collations: %w", err)
	}
	for _, r := range rows {
		id, err := strconv.ParseUint(r[0], 10, 64)
		if err != nil {
			return fmt.Errorf("collation id %q: %w", r[0], err)
		}
		s.charsetOf[id] = strings.ToLower(r[1])
	}
	return nil
}

// logStatus is the end of the binlog, which a SELECT may not show yet.
type logStatus struct {
	file         string
	pos          uint32
	gtid         string // MySQL: executed set, all of it visible to SELECT
	doDB, ignore string // filters: databases, comma-separated
}

func (l logStatus) position() (position, error) {
	n, err := fileNumber(l.file)
	return position{n, l.pos}, err
}

func (c *conn) logStatus(ctx context.Context) (logStatus, error) {
	query := "SHOW BINARY LOG STATUS"
	if c.server.mariadb() {
		query = "SHOW MASTER STATUS"
	}
	rows, err := c.rows(ctx, query)
	var e *gomysql.MyError
	if errors.As(err, &e) && e.Code == erParse { // MySQL before 8.2
		rows, err = c.rows(ctx, "SHOW MASTER STATUS")
	}
	if err != nil {
		return logStatus{}, err
	}
	if len(rows) == 0 {
		return logStatus{}, errors.New("the server writes no binlog")
	}
	r := rows[0]
	pos, err := strconv.ParseUint(r[1], 10, 32)
	if err != nil {
		return logStatus{}, fmt.Errorf("binlog position %q: %w", r[1], err)
	}
	l := logStatus{file: r[0], pos: uint32(pos), doDB: r[2], ignore: r[3]}
	if len(r) > 4 {
		l.gtid = strings.ReplaceAll(r[4], "\n", "")
	}
	return l, nil
}

const readingBinlog = "reading the binlog of"

// explain says what, where and what to do about an error of the server.
func (s *Source) explain(err error, doing string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	err = causeOf(context.Background(), err)
	wrapped := fmt.Errorf("%s %s: %w", doing, s.cfg.Address, err)
	var e *gomysql.MyError
	if !errors.As(err, &e) {
		return leat.Hint(wrapped, "is a MySQL or MariaDB server listening at %s, and may this machine reach it?", s.cfg.Address)
	}
	switch e.Code {
	case erAccessDenied, erAccountLocked:
		if doing == readingBinlog { // the connection itself was allowed
			return leat.Hint(wrapped, "%s", s.replicationGrant())
		}
		return leat.Hint(wrapped, "check user and password of source %q; to make the account: CREATE USER %s IDENTIFIED BY '…'", s.name, s.account())
	case erSpecificDenied:
		return leat.Hint(wrapped, "%s", s.replicationGrant())
	case erBinlogRead:
		return s.explainBinlogRead(wrapped, e.Message)
	}
	return wrapped
}

// explainBinlogRead tells apart what the server reports as one code.
func (s *Source) explainBinlogRead(err error, message string) error {
	m := strings.ToLower(message)
	switch {
	case strings.Contains(m, "same server_uuid"), strings.Contains(m, "same server_id"):
		return leat.Hint(err, "another replica registered with server_id %d: give source %q a server_id of its own", s.cfg.replicaID(s.name, ""), s.name)
	case strings.Contains(m, "max_allowed_packet"):
		return leat.Hint(err, "SET GLOBAL max_allowed_packet=1073741824 on the server")
	case strings.Contains(m, "purged"), strings.Contains(m, "could not find first log"), strings.Contains(m, "could not open log file"),
		strings.Contains(m, "not in the master's binlog"), strings.Contains(m, "more gtids"), strings.Contains(m, "not present in"),
		strings.Contains(m, "could not find gtid state"):
		return s.positionLost(err)
	}
	return err
}

func (s *Source) positionLost(err error) error {
	return leat.Hint(fmt.Errorf("%w: %w", leat.ErrPositionLost, err),
		"read the tables anew with leat reindex --from-source; keep binlogs longer than leat may be down (binlog_expire_logs_seconds)")
}

func (s *Source) account() string { return "'" + s.cfg.User + "'@'%'" }

func (s *Source) replicationGrant() string {
	return "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO " + s.account()
}
