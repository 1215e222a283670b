package mysql

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/google/uuid"

	"leat"
)

// state is what a saved position (leat.Batch.Position) holds. It is taken at
// the end of a transaction, never inside one.
type state struct {
	Flavor string `json:"flavor"` // "mysql" or "mariadb"
	Server string `json:"server"` // whose file and pos these are: server_uuid, or MariaDB's server_id
	Epoch  uint64 `json:"epoch"`  // see version; rises when Server's positions go back
	GTID   string `json:"gtid"`   // transactions that have been emitted; decides where to resume
	File   string `json:"file"`   // end of the last one in the binlog
	Pos    uint32 `json:"pos"`
	// Given is the highest version of a snapshot's events. The next snapshot's
	// are above it, even where no transaction has moved Pos in between.
	Given uint64 `json:"given,omitempty"`
	// Tables by database.table. A configured table that is not here is to be
	// snapshotted from its beginning.
	Tables map[string]*progress `json:"tables"`
}

// progress of a table's snapshot.
type progress struct {
	Config string   `json:"config"`          // fingerprint of the table's configuration …
	Shape  string   `json:"shape"`           // … and of its columns when the snapshot began (see layout.shape)
	Seen   string   `json:"seen,omitempty"`  // … and of those of the last row from the binlog since
	Base   uint64   `json:"base,omitempty"`  // versions of the snapshot are above it
	Done   bool     `json:"done,omitempty"`  // the snapshot is complete
	Swept  bool     `json:"swept,omitempty"` // documents without rows were deleted
	Key    []string `json:"key,omitempty"`   // primary key of the last row read, as SQL literals
	Rows   int64    `json:"rows,omitempty"`
	// Prepared: rows of an XA transaction were given that has not ended yet.
	Prepared bool `json:"prepared,omitempty"`
}

func parseState(raw json.RawMessage) (*state, error) {
	s := new(state)
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("the saved position is not one of a MySQL source: %w", err)
	}
	if s.Flavor != gomysql.MySQLFlavor && s.Flavor != gomysql.MariaDBFlavor || s.Epoch > maxEpoch {
		return nil, fmt.Errorf("the saved position is not one of a MySQL source: flavor %q, epoch %d", s.Flavor, s.Epoch)
	}
	if s.Tables == nil {
		s.Tables = map[string]*progress{}
	}
	return s, nil
}

// gtids is a GTID set (MySQL) or position (MariaDB) that is cheap to extend by
// the next transaction.
type gtids struct {
	gomysql.GTIDSet
	source   []byte // of the run of transactions being extended (MySQL) …
	tag      gomysql.Tag
	interval *gomysql.Interval // … and its interval in the set
}

func parseGTIDs(flavor, text string) (*gtids, error) {
	set, err := gomysql.ParseGTIDSet(flavor, text)
	if err != nil {
		return nil, leat.Hint(fmt.Errorf("GTID set %q: %w", text, err), "")
	}
	return &gtids{GTIDSet: set}, nil
}

func (g *gtids) add(e *replication.GTIDEvent) error {
	if g.interval != nil && g.interval.Stop == e.GNO && g.tag == e.Tag && bytes.Equal(g.source, e.SID) {
		g.interval.Stop++
		return nil
	}
	id, err := uuid.FromBytes(e.SID)
	if err != nil {
		return fmt.Errorf("GTID event: %w", err)
	}
	set := g.GTIDSet.(*gomysql.MysqlGTIDSet)
	set.AddGTIDWithTag(id, e.Tag, e.GNO)
	g.interval, g.source, g.tag = nil, e.SID, e.Tag
	intervals := (*set)[id][e.Tag]
	if last := &intervals[len(intervals)-1]; last.Stop == e.GNO+1 {
		g.interval = last
	}
	return nil
}

func (g *gtids) addMariaDB(e *replication.MariadbGTIDEvent) {
	sets := g.GTIDSet.(*gomysql.MariadbGTIDSet).Sets
	if have, ok := sets[e.GTID.DomainID]; ok {
		*have = e.GTID
		return
	}
	gtid := e.GTID
	sets[gtid.DomainID] = &gtid
}

func (s *state) describe() string {
	if s.File == "" {
		return s.GTID
	}
	return s.File + ":" + strconv.FormatUint(uint64(s.Pos), 10)
}
