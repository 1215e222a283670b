package mysql

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// waitVisible returns when a SELECT shows everything up to low, the end of the
// last transaction of the set.
func (c *conn) waitVisible(ctx context.Context, low position, gtid string) error {
	if c.server.mariadb() {
		if _, err := c.snapshotFrom(ctx, low); err != nil {
			return err
		}
		_, err := c.do(ctx, "COMMIT")
		return err
	}
	if gtid == "" {
		return nil
	}
	for { // a transaction may be long in coming, where it waits for a semi-synchronous replica
		rows, err := c.rows(ctx, "SELECT WAIT_FOR_EXECUTED_GTID_SET("+quoteText(gtid)+",10)")
		if err != nil || rows[0][0] == "0" {
			return err
		}
	}
}

// waitCommitted returns when a SELECT shows everything that is in MySQL's
// binlog at the call. A transaction owns its GTID from before it is written
// there until a SELECT shows it; one that a replica applies, from its beginning.
func (c *conn) waitCommitted(ctx context.Context) error {
	pending, err := c.owned(ctx)
	for err == nil && len(pending) > 0 {
		if err = sleep(ctx, time.Millisecond); err != nil {
			break
		}
		var now map[string]bool
		now, err = c.owned(ctx)
		maps.DeleteFunc(pending, func(gtid string, _ bool) bool { return !now[gtid] })
	}
	return err
}

// owned are the GTIDs of transactions under way.
func (c *conn) owned(ctx context.Context) (map[string]bool, error) {
	rows, err := c.rows(ctx, "SELECT @@GLOBAL.gtid_owned")
	if err != nil {
		return nil, err
	}
	return parseOwned(rows[0][0]), nil
}

const uuidPattern = `[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}`

var (
	ownedSource = regexp.MustCompile(`^` + uuidPattern + `$`)
	// ownedPart is a number with the id of the thread that owns it, and with the
	// next source where the server leaves out the comma.
	ownedPart = regexp.MustCompile(`^(\d+)#\d+?(` + uuidPattern + `)?$`)
)

// parseOwned reads gtid_owned, such as UUID:1#7:2#8,UUID:TAG:1#9.
func parseOwned(text string) map[string]bool {
	owned := map[string]bool{}
	source, tag := "", ""
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(":, \n", r) }) {
		switch m := ownedPart.FindStringSubmatch(part); {
		case m != nil:
			owned[source+tag+":"+m[1]] = true
			if m[2] != "" {
				source, tag = m[2], ""
			}
		case ownedSource.MatchString(part):
			source, tag = part, ""
		default:
			tag = ":" + part
		}
	}
	return owned
}

// snapshotFrom starts a transaction of MariaDB that sees the state at one place
// of the binlog, at or past low, and returns that place.
func (c *conn) snapshotFrom(ctx context.Context, low position) (position, error) {
	for {
		status, err := c.beginSnapshot(ctx)
		if err != nil {
			return position{}, err
		}
		at, err := status.position()
		if err != nil || !at.less(low) {
			return at, err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return at, err
		}
	}
}

// beginSnapshot starts a transaction that sees the state at one place of the
// binlog, which MariaDB tells.
func (c *conn) beginSnapshot(ctx context.Context) (logStatus, error) {
	if _, err := c.do(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT"); err != nil {
		return logStatus{}, err
	}
	rows, err := c.rows(ctx, "SHOW STATUS LIKE 'binlog_snapshot_%'")
	if err != nil {
		return logStatus{}, err
	}
	var l logStatus
	for _, r := range rows {
		switch strings.ToLower(r[0]) {
		case "binlog_snapshot_file":
			l.file = r[1]
		case "binlog_snapshot_position":
			n, err := strconv.ParseUint(r[1], 10, 32)
			if err != nil {
				return l, fmt.Errorf("binlog position %q: %w", r[1], err)
			}
			l.pos = uint32(n)
		}
	}
	return l, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
