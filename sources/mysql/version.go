package mysql

import (
	"fmt"
	"strconv"
	"strings"

	"leat"
)

// position is a place in one server's binlogs.
type position struct {
	file uint32 // number of the binlog file
	pos  uint32 // bytes from its start
}

func (p position) less(q position) bool {
	return p.file < q.file || p.file == q.file && p.pos < q.pos
}

// Bits of a version: epoch 11 | file number 20 | position 32, 63 together.
const (
	fileBits  = 20
	posBits   = 32
	maxFile   = 1<<fileBits - 1
	maxEpoch  = 1<<11 - 1
	epochBits = fileBits + posBits
)

// version of a change (I2): the stream of one epoch rises by file and position.
func version(epoch uint64, p position) uint64 {
	return epoch<<epochBits | uint64(p.file)<<posBits | uint64(p.pos)
}

// spare is how far past the end of a transaction versions can be given that are
// below all of the next one: less than the GTID event that begins it.
const spare = 32

// fileNumber is the number at the end of a binlog's name: 12 of binlog.000012.
func fileNumber(name string) (uint32, error) {
	digits := name[strings.LastIndexByte(name, '.')+1:]
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("binlog file %q has no number", name)
	}
	if n > maxFile {
		return 0, leat.Hint(fmt.Errorf("binlog file number %d is past %d, the largest that fits a version", n, maxFile),
			"RESET BINARY LOGS AND GTIDS begins again at 1; then re-read the source (leat reindex --from-source)")
	}
	return uint32(n), nil
}
