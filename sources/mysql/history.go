package mysql

import (
	"context"
	"fmt"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
)

// checkHistory makes sure that the server still holds what comes after the
// position and has not lost what came before it. It returns the position's
// transactions.
func (s *Source) checkHistory(ctx context.Context, c *conn, st *state) (*gtids, error) {
	if st.Flavor != c.server.flavor {
		return nil, s.positionLost(fmt.Errorf("the position is of a %s server, %s runs %s", st.Flavor, s.cfg.Address, c.server.flavor))
	}
	set, err := parseGTIDs(c.server.flavor, st.GTID)
	if err != nil {
		return nil, err
	}
	if c.server.mariadb() {
		return set, s.checkMariaDBHistory(ctx, c, st, set)
	}
	query := fmt.Sprintf("SELECT GTID_SUBSET(%[1]s,@@GLOBAL.gtid_executed), GTID_SUBSET(@@GLOBAL.gtid_purged,%[1]s), GTID_SUBTRACT(@@GLOBAL.gtid_purged,%[1]s)", quoteText(st.GTID))
	rows, err := c.rows(ctx, query)
	if err == nil && rows[0][0] != "1" {
		// A transaction can be read from the binlog before it counts as executed.
		if err = c.waitCommitted(ctx); err == nil {
			rows, err = c.rows(ctx, query)
		}
	}
	if err != nil {
		return nil, s.explain(err, "comparing GTID sets on")
	}
	if rows[0][0] != "1" {
		return nil, s.positionLost(fmt.Errorf("the server has not executed %s: it was reset, restored or is another one", st.GTID))
	}
	if rows[0][1] != "1" {
		return nil, s.positionLost(fmt.Errorf("the server has purged transactions that were not read yet: %s", rows[0][2]))
	}
	return set, nil
}

// checkMariaDBHistory finds that the server's binlog ends before the position,
// which Session.Once would take for having caught up. Whether the server still
// holds what comes after it, the server says when it is asked for the binlog.
func (s *Source) checkMariaDBHistory(ctx context.Context, c *conn, st *state, set *gtids) error {
	rows, err := c.rows(ctx, "SELECT @@GLOBAL.gtid_binlog_pos")
	if err != nil {
		return s.explain(err, "reading the GTID position of")
	}
	now, err := parseGTIDs(c.server.flavor, rows[0][0])
	if err != nil {
		return err
	}
	have := now.GTIDSet.(*gomysql.MariadbGTIDSet).Sets
	for domain, saved := range set.GTIDSet.(*gomysql.MariadbGTIDSet).Sets {
		if at := have[domain]; at == nil || at.SequenceNumber < saved.SequenceNumber {
			return s.positionLost(fmt.Errorf("the server's binlog does not reach %s: it was reset, restored or is another one", saved))
		}
	}
	status, err := c.logStatus(ctx)
	if err != nil {
		return s.explain(err, "reading the binlog's status of")
	}
	end, err := status.position()
	if err != nil {
		return err
	}
	past, err := st.past(c.server, end)
	if past {
		return s.positionLost(fmt.Errorf("the server's binlog ends at %s:%d, before the saved %s: it was reset or restored", status.file, status.pos, st.describe()))
	}
	return err
}

// past reports whether the position is of the server's own files and lies past end.
func (s *state) past(v *server, end position) (bool, error) {
	if s.Server != v.id || s.File == "" {
		return false, nil
	}
	saved, err := fileNumber(s.File)
	return err == nil && end.less(position{saved, s.Pos}), err
}
