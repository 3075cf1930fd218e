package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
)

// A record is stored under its revision as etcd stores it: the key is
//
//	main (8 bytes, big-endian) '_' sub (8 bytes, big-endian) ['t']
//
// where 't' marks a tombstone, and the value is an mvccpb.KeyValue message. For
// a tombstone that message has the key and, unlike etcd's, the mod_revision.
//
// Ours adds one trailing field, unknown to etcd's decoder and skipped by it:
//
//	field 2000, fixed32: CRC-32C of the stored key and of the message before it
//
// so that a page that rotted, or a record in another's place, is seen when it
// is read. A record without the field is one that etcd wrote; see verify.

// The fields of mvccpb.KeyValue, and ours.
const (
	fieldKey      = 1
	fieldCreate   = 2
	fieldMod      = 3
	fieldVersion  = 4
	fieldValue    = 5
	fieldLease    = 6
	fieldChecksum = 2000
)

const (
	revisionKeyLen  = 17
	tombstoneKeyLen = 18
	tombstoneMark   = 't'

	// The trailer: a tag of two bytes, then the sum, little-endian.
	trailerLen  = 6
	trailerTag  = fieldChecksum<<3 | uint16(protowire.Fixed32Type)
	trailerTag0 = byte(trailerTag&0x7f | 0x80)
	trailerTag1 = byte(trailerTag >> 7)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// revision names one record: the sub-th change of transaction main.
type revision struct {
	main api.Revision
	sub  int32
	tomb bool
}

// before reports whether r was written before o.
func (r revision) before(o revision) bool {
	return r.main < o.main || r.main == o.main && r.sub < o.sub
}

// appendTo appends the record's stored key.
func (r revision) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.main))
	b = append(b, '_')
	b = binary.BigEndian.AppendUint64(b, uint64(r.sub))
	if r.tomb {
		b = append(b, tombstoneMark)
	}
	return b
}

// mainKey is the smallest stored key of a revision: a bound for scans.
func mainKey(main api.Revision) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, revisionKeyLen), uint64(main))
}

// parseRevision reads a record's stored key.
func parseRevision(k []byte) (revision, error) {
	tomb := len(k) == tombstoneKeyLen && k[revisionKeyLen] == tombstoneMark
	if len(k) != revisionKeyLen && !tomb || k[8] != '_' {
		return revision{}, fmt.Errorf("%w: revision key %x", ErrCorrupt, k)
	}
	main, sub := binary.BigEndian.Uint64(k), binary.BigEndian.Uint64(k[9:])
	if int64(main) <= 0 || sub > 1<<31-1 {
		return revision{}, fmt.Errorf("%w: revision key %x", ErrCorrupt, k)
	}
	return revision{api.Revision(main), int32(sub), tomb}, nil
}

// recordSize is the exact length of what appendRecord appends.
func recordSize(it *item, value []byte) int {
	n := 1 + protowire.SizeBytes(len(it.key)) + 1 + protowire.SizeVarint(uint64(it.mod)) + trailerLen
	if it.tomb {
		return n
	}
	n += 1 + protowire.SizeVarint(uint64(it.create)) + 1 + protowire.SizeVarint(uint64(it.version))
	if len(value) > 0 {
		n += 1 + protowire.SizeBytes(len(value))
	}
	if it.lease != 0 {
		n += 1 + protowire.SizeVarint(uint64(it.lease))
	}
	return n
}

// appendRecord appends the record of an item with its checksum.
func appendRecord(b []byte, it *item, value []byte) []byte {
	start := len(b)
	b = append(b, fieldKey<<3|byte(protowire.BytesType))
	b = protowire.AppendString(b, it.key)
	if !it.tomb {
		b = append(b, fieldCreate<<3)
		b = protowire.AppendVarint(b, uint64(it.create))
	}
	b = append(b, fieldMod<<3)
	b = protowire.AppendVarint(b, uint64(it.mod))
	if !it.tomb {
		b = append(b, fieldVersion<<3)
		b = protowire.AppendVarint(b, uint64(it.version))
		if len(value) > 0 {
			b = append(b, fieldValue<<3|byte(protowire.BytesType))
			b = protowire.AppendBytes(b, value)
		}
		if it.lease != 0 {
			b = append(b, fieldLease<<3)
			b = protowire.AppendVarint(b, uint64(it.lease))
		}
	}
	// The key goes where the trailer will be, for its sum.
	end := len(b)
	b = it.rev().appendTo(b)
	sum := checksum(b[end:], b[start:end])
	b = append(b[:end], trailerTag0, trailerTag1)
	return binary.LittleEndian.AppendUint32(b, sum)
}

// recordSlack is what appendRecord needs beyond recordSize, for a moment.
const recordSlack = tombstoneKeyLen - trailerLen

func checksum(key, message []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, message)
}

// verify checks a value stored under key and returns it without its trailer.
// Records of transactions before trusted may come from etcd and have none; all
// others must. (A store of our own is trusted from its first transaction.)
func verify(key, value []byte, trusted api.Revision) (Record, error) {
	n := len(value) - trailerLen
	if n > 0 && value[n] == trailerTag0 && value[n+1] == trailerTag1 &&
		binary.LittleEndian.Uint32(value[n+2:]) == checksum(key, value[:n]) {
		return Record(value[:n:n]), nil
	}
	rev, err := parseRevision(key)
	if err != nil {
		return nil, err
	}
	if rev.main >= trusted {
		return nil, fmt.Errorf("%w: checksum of revision %d.%d (%d bytes)", ErrCorrupt, rev.main, rev.sub, len(value))
	}
	var f fields
	if err := f.decode(value); err != nil {
		return nil, fmt.Errorf("revision %d.%d: %w", rev.main, rev.sub, err)
	}
	return Record(value), nil
}

// fields are the parts of a KeyValue that the index needs. Slices alias the
// record.
type fields struct {
	key     []byte
	create  api.Revision
	mod     api.Revision
	version int64
	lease   api.LeaseID
}

// decode reads a record. It is strict: a field that etcd 3.7 does not write is
// taken for damage.
func (f *fields) decode(rec []byte) error {
	*f = fields{}
	for b := rec; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: tag", ErrCorrupt)
		}
		b = b[n:]
		switch {
		case typ == protowire.BytesType && (num == fieldKey || num == fieldValue):
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return fmt.Errorf("%w: field %d", ErrCorrupt, num)
			}
			if num == fieldKey {
				f.key = v
			}
			b = b[n:]
		case typ == protowire.VarintType && num != fieldKey && num != fieldValue && num <= fieldLease:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return fmt.Errorf("%w: field %d", ErrCorrupt, num)
			}
			f.set(num, v)
			b = b[n:]
		default:
			return fmt.Errorf("%w: field %d of type %d", ErrCorrupt, num, typ)
		}
	}
	if len(f.key) == 0 {
		return fmt.Errorf("%w: record without key", ErrCorrupt)
	}
	return nil
}

func (f *fields) set(num protowire.Number, v uint64) {
	switch num {
	case fieldCreate:
		f.create = api.Revision(v)
	case fieldMod:
		f.mod = api.Revision(v)
	case fieldVersion:
		f.version = int64(v)
	case fieldLease:
		f.lease = api.LeaseID(v)
	}
}

// withModRevision returns a tombstone's record as watchers get it. etcd's own
// tombstones lack the mod_revision.
func withModRevision(rec Record, rev revision) (Record, fields, error) {
	var f fields
	if err := f.decode(rec); err != nil {
		return nil, f, err
	}
	if f.mod == rev.main || !rev.tomb {
		return rec, f, nil
	}
	out := append(make(Record, 0, len(rec)+10), rec...)
	out = append(out, fieldMod<<3)
	f.mod = rev.main
	return protowire.AppendVarint(out, uint64(rev.main)), f, nil
}
