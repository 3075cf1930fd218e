package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// proofs are the places, in two sectors between header and copy, of the state
// records that Mark writes in turn.
var proofs = [2]int64{512, 2048}

const (
	headerSize = 128
	// headerCopy is where the header stands a second time, so that no single
	// damaged sector hides a segment's votes from a repair.
	headerCopy = statesApart
	// recordsStart is where the first record stands.
	recordsStart = headerCopy + headerSize

	headerMagic   = "KEELSWAL"
	formatVersion = 1

	segmentSuffix = ".wal"
	// newSuffix marks a segment that was not synced yet when it was written;
	// a crash leaves it behind and Open removes it.
	newSuffix = ".wal.new"
	// damagedSuffix marks what Replace has put aside.
	damagedSuffix = ".damaged"
	// spareName is a released segment's file that the next one will take over;
	// like every *.wal.new it counts for nothing, and Open removes it.
	spareName = "spare" + newSuffix

	defaultSegmentSize = 16 << 20
	minSegmentSize     = 16 << 10 // each segment spends 8 KiB on second copies
)

// header is the first part of a segment file and stands there twice, at 0 and
// at headerCopy. Its bytes, little-endian:
//
//	0   magic     8 bytes
//	8   version   uint32
//	12  flags     uint32  1: reset, earlier segments are void
//	16  cluster   uint64
//	24  member    uint64
//	32  number    uint64  of this segment, from 1, never used twice
//	40  salt      uint64  differs between segments; nobody can guess it
//	48  sequence  uint64  of the first footer
//	56  size      uint64  of the file when it was created
//	64  prevEnd   uint64  where the segment before proved durable; its end
//	72  index     uint64  the log's last position when this segment began
//	80  term      uint64
//	88  proven    uint64  end of the first batch, durable before the file's name
//	96  older     uint64  below it, records of an earlier segment may stand behind
//	                      this one's
//	104 zeros
//	124 sum       uint32  CRC-32C of bytes 0–123
type header struct {
	reset    bool
	id       Identity
	number   uint64
	salt     uint64
	sequence uint64
	size     int64
	prevEnd  int64
	position Position
	proven   int64
	older    int64
}

// ErrFormat is returned for a log that a newer program wrote.
var ErrFormat = errors.New("wal: unknown format version")

const flagReset = 1

func (h header) encode() []byte {
	p := make([]byte, headerSize)
	copy(p, headerMagic)
	binary.LittleEndian.PutUint32(p[8:], formatVersion)
	if h.reset {
		binary.LittleEndian.PutUint32(p[12:], flagReset)
	}
	for i, v := range []uint64{
		uint64(h.id.Cluster), uint64(h.id.Member), h.number, h.salt, h.sequence, uint64(h.size),
		uint64(h.prevEnd), uint64(h.position.Index), uint64(h.position.Term), uint64(h.proven), uint64(h.older),
	} {
		binary.LittleEndian.PutUint64(p[16+8*i:], v)
	}
	binary.LittleEndian.PutUint32(p[124:], crc32.Checksum(p[:124], castagnoli))
	return p
}

var errBadHeader = errors.New("segment header does not verify")

func decodeHeader(p []byte) (header, error) {
	if len(p) < headerSize || string(p[:8]) != headerMagic ||
		crc32.Checksum(p[:124], castagnoli) != binary.LittleEndian.Uint32(p[124:]) {
		return header{}, errBadHeader
	}
	if v := binary.LittleEndian.Uint32(p[8:]); v != formatVersion {
		return header{}, fmt.Errorf("%w %d (this program reads %d)", ErrFormat, v, formatVersion)
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(p[16+8*i:]) }
	h := header{
		reset:    binary.LittleEndian.Uint32(p[12:])&flagReset != 0,
		id:       Identity{Cluster: api.ClusterID(word(0)), Member: api.MemberID(word(1))},
		number:   word(2),
		salt:     word(3),
		sequence: word(4),
		size:     int64(word(5)),
		prevEnd:  int64(word(6)),
		position: Position{Index: api.Index(word(7)), Term: api.Term(word(8))},
		proven:   int64(word(9)),
		older:    int64(word(10)),
	}
	if h.number == 0 || h.size < recordsStart || h.proven < recordsStart+footerSize || h.proven > h.size || h.prevEnd < 0 {
		return header{}, errBadHeader
	}
	return h, nil
}

// seed starts the checksums of the segment's records.
func (h header) seed() uint32 {
	var p [32]byte
	for i, v := range []uint64{uint64(h.id.Cluster), uint64(h.id.Member), h.number, h.salt} {
		binary.LittleEndian.PutUint64(p[8*i:], v)
	}
	return crc32.Checksum(p[:], castagnoli)
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil && n > 0 && segmentName(n) == name
}

// segment is one open file of the log.
type segment struct {
	header
	checksum uint32 // header.seed()
	file     vfs.File
	// first and offsets say where the live entries are: entry first+i stands
	// at offsets[i]*alignment. Entries that later ones replaced are not listed.
	// Owned by the table.
	first   api.Index
	offsets []uint32
	bound   int64 // where the last live entry ends, at most
	end     int64 // bytes in use; fixed once a later segment exists
	users   atomic.Int32
}

func newSegment(h header, file vfs.File) *segment {
	s := &segment{header: h, checksum: h.seed(), file: file, end: recordsStart}
	s.users.Store(1)
	return s
}

func (s *segment) name() string { return segmentName(s.number) }

func (s *segment) offset(i api.Index) int64 { return int64(s.offsets[i-s.first]) * alignment }

// endOf returns where entry i ends, at most.
func (s *segment) endOf(i api.Index) int64 {
	if i == s.last() {
		return s.bound
	}
	return s.offset(i + 1)
}

// last returns the newest live entry, or first-1 if there is none.
func (s *segment) last() api.Index { return s.first + api.Index(len(s.offsets)) - 1 }

// acquire keeps the file open for a reader; it is called under WAL.mu while
// the segment is in the table, so the count is not 0.
func (s *segment) acquire() { s.users.Add(1) }

// release closes the file after its last user, the table being one.
func (s *segment) release() error {
	if s.users.Add(-1) > 0 {
		return nil
	}
	return s.file.Close()
}

func path(dir, name string) string { return filepath.Join(dir, name) }
