package mysql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"leat"
)

// Check tries everything that Run needs: the account, the server's binlog
// settings, the tables, and the binlog itself.
func (s *Source) Check(ctx context.Context) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, problems := s.prepare(ctx, c)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(problems, s.probeBinlog(ctx, c))
}

// prepare reads server and tables and returns every problem, joined.
func (s *Source) prepare(ctx context.Context, c *conn) ([]*table, error) {
	if err := c.inspect(ctx); err != nil {
		return nil, s.explain(err, "inspecting")
	}
	var errs []error
	errs = append(errs, s.checkSettings(c.server)...)
	status, err := c.logStatus(ctx)
	if err != nil && c.server.vars["log_bin"] != "OFF" {
		errs = append(errs, s.explain(err, "reading the binlog's status of"))
	}
	tables := make([]*table, len(s.cfg.Tables))
	for i, cfg := range s.cfg.Tables {
		t := newTable(s.name, cfg)
		tables[i] = t
		if listed(status.ignore, t.schema) || status.doDB != "" && !listed(status.doDB, t.schema) {
			errs = append(errs, leat.Hint(fmt.Errorf("the server leaves database %s out of its binlog", t.schema),
				"remove it from binlog-ignore-db, or add it to binlog-do-db, in the server's configuration"))
		}
		errs = append(errs, s.checkTable(ctx, c, t)...)
	}
	return tables, errors.Join(errs...)
}

func listed(list, name string) bool {
	for _, n := range strings.Split(list, ",") {
		if n == name && n != "" {
			return true
		}
	}
	return false
}

func (s *Source) checkSettings(v *server) (errs []error) {
	for _, want := range []struct{ name, value, hint string }{
		{"log_bin", "ON", "start the server with log_bin"},
		{"binlog_format", "ROW", "SET GLOBAL binlog_format=ROW, and in the server's configuration"},
		{"binlog_row_image", "FULL", "SET GLOBAL binlog_row_image=FULL, and in the server's configuration"},
		{"binlog_row_metadata", "FULL", "SET GLOBAL binlog_row_metadata=FULL, and in the server's configuration"},
		{"binlog_row_value_options", "", "SET GLOBAL binlog_row_value_options='', and in the server's configuration"},
		{"gtid_mode", "ON", "the server's manual tells how to turn GTIDs on while it runs: enforce_gtid_consistency=ON, then gtid_mode step by step to ON"},
	} {
		have, known := v.vars[want.name]
		if !known && (want.name == "gtid_mode" && v.mariadb() || want.name == "binlog_row_value_options" || want.name == "binlog_format") {
			continue
		}
		if !strings.EqualFold(have, want.value) {
			errs = append(errs, leat.Hint(fmt.Errorf("the server's %s is %q, not %q", want.name, have, want.value), "%s", want.hint))
		}
	}
	return errs
}

func (s *Source) checkTable(ctx context.Context, c *conn, t *table) []error {
	grant := fmt.Sprintf("GRANT SELECT ON %s TO %s", t.quoted(), s.account())
	_, err := c.do(ctx, "SELECT 1 FROM "+t.quoted()+" LIMIT 0")
	var e *gomysql.MyError
	if errors.As(err, &e) {
		switch e.Code {
		case erTableAccessDenied, erDBAccessDenied, erAccessDenied:
			return []error{leat.Hint(fmt.Errorf("reading table %s: %w", t.name, err), "%s", grant)}
		case erNoSuchTable, erBadDB:
			return []error{leat.Hint(fmt.Errorf("table %s does not exist", t.name), "check its name in the configuration, upper and lower case too")}
		}
	}
	if err != nil && !(e != nil && e.Code == erColumnDenied) {
		return []error{s.explain(err, "reading table "+t.name+" of")}
	}
	if err := t.load(ctx, c); err != nil {
		return []error{err}
	}
	if t.read == nil {
		return []error{leat.Hint(fmt.Errorf("table %s has no columns that the account may see", t.name), "%s", grant)}
	}
	if _, err := c.do(ctx, "SELECT "+strings.Join(t.read.selects, ",")+" FROM "+t.quoted()+" LIMIT 0"); err != nil {
		if errors.As(err, &e) && (e.Code == erColumnDenied || e.Code == erTableAccessDenied) {
			return []error{leat.Hint(fmt.Errorf("reading table %s: %w", t.name, err), "%s", grant)}
		}
		return []error{s.explain(err, "reading table "+t.name+" of")}
	}
	return nil
}

// probeBinlog asks for the binlog under a replica id of its own, so that it
// disturbs no running source, and waits for its first event.
func (s *Source) probeBinlog(ctx context.Context, c *conn) error {
	status, err := c.logStatus(ctx)
	if err != nil {
		return nil // reported by prepare
	}
	cfg, err := s.syncerConfig(ctx, c.server, s.cfg.replicaID(s.name, "check"))
	if err != nil {
		return err
	}
	syncer := replication.NewBinlogSyncer(cfg)
	defer syncer.Close()
	stream, err := syncer.StartSync(gomysql.Position{Name: status.file, Pos: status.pos})
	if err != nil {
		return s.explain(err, readingBinlog)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if _, err := stream.GetEvent(ctx); err != nil {
		return s.explain(err, readingBinlog)
	}
	return nil
}

func (s *Source) syncerConfig(ctx context.Context, v *server, id uint32) (replication.BinlogSyncerConfig, error) {
	host, portText, err := net.SplitHostPort(s.cfg.Address)
	if err != nil {
		return replication.BinlogSyncerConfig{}, fmt.Errorf("address %q: %w", s.cfg.Address, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return replication.BinlogSyncerConfig{}, fmt.Errorf("address %q: %w", s.cfg.Address, err)
	}
	return replication.BinlogSyncerConfig{
		ServerID: id, Flavor: v.flavor, Host: host, Port: uint16(port),
		User: s.cfg.User, Password: s.cfg.Password.Reveal(), Charset: "utf8mb4",
		Dialer:           (&dialer{ctx: ctx}).dial,
		Localhost:        "leat-" + s.name,
		HeartbeatPeriod:  heartbeat,
		ReadTimeout:      10 * heartbeat,
		DisableRetrySync: true, // Run is called again, from the last durable position
		DiscardGTIDSet:   true,
		EventCacheCount:  1,
		FillZeroLogPos:   v.mariadb(),
		Logger:           slog.New(slog.DiscardHandler),
	}, nil
}

// heartbeat of an idle binlog stream; ten missing ones are a dead connection.
const heartbeat = time.Second
