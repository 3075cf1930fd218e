package server

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// Answers are encoded by hand: stored records are KeyValue messages already and
// are copied in as they are. Field numbers are etcd's rpc.proto and kv.proto.
const (
	fieldHeader = 1 // of every response

	fieldRangeKVs   = 2
	fieldRangeMore  = 3
	fieldRangeCount = 4

	fieldPutPrev = 2

	fieldDeleted    = 2
	fieldDeletePrev = 3

	fieldSucceeded = 2
	fieldResponses = 3

	fieldOpRange  = 1 // of ResponseOp
	fieldOpPut    = 2
	fieldOpDelete = 3
	fieldOpTxn    = 4

	fieldKVKey     = 1
	fieldKVCreate  = 2
	fieldKVMod     = 3
	fieldKVVersion = 4
	fieldKVValue   = 5
)

// headerBytes is the most that a header takes, with its tag and length.
const headerBytes = 4*(1+10) + 2

// appendInt appends an int64 field unless it is zero.
func appendInt(b []byte, number protowire.Number, v int64) []byte {
	return appendUint(b, number, uint64(v))
}

func appendBool(b []byte, number protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return append(protowire.AppendTag(b, number, protowire.VarintType), 1)
}

func appendBytes(b []byte, number protowire.Number, v []byte) []byte {
	b = protowire.AppendTag(b, number, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// openMessage begins a nested message; closeMessage ends it. Between the two
// its content is appended.
func openMessage(b []byte, number protowire.Number) (_ []byte, mark int) {
	b = protowire.AppendTag(b, number, protowire.BytesType)
	return append(b, 0), len(b) + 1
}

// closeMessage writes the length of the content after mark. One byte was kept
// for it; a longer length moves the content.
func closeMessage(b []byte, mark int) []byte {
	size := len(b) - mark
	if size < 0x80 {
		b[mark-1] = byte(size)
		return b
	}
	extra := protowire.SizeVarint(uint64(size)) - 1
	b = append(b, make([]byte, extra)...)
	copy(b[mark+extra:], b[mark:mark+size])
	protowire.AppendVarint(b[:mark-1], uint64(size))
	return b
}

// appendFullHeader appends field 1 of an answer to a client.
func (s *Server) appendFullHeader(b []byte, rev api.Revision, term api.Term) []byte {
	b, mark := openMessage(b, fieldHeader)
	return closeMessage(s.appendHeader(b, rev, term), mark)
}

// appendNestedHeader appends the header of an answer inside a transaction's: it
// has the revision only.
func appendNestedHeader(b []byte, rev api.Revision) []byte {
	b, mark := openMessage(b, fieldHeader)
	return closeMessage(appendUint(b, fieldHeaderRevision, uint64(rev)), mark)
}

// appendItem appends the KeyValue content of a keys-only answer. Like etcd's it
// has no lease.
func appendItem(b []byte, it *mvcc.Item) []byte {
	b = appendBytes(b, fieldKVKey, it.Key)
	b = appendInt(b, fieldKVCreate, int64(it.Create))
	b = appendInt(b, fieldKVMod, int64(it.Mod))
	return appendInt(b, fieldKVVersion, it.Version)
}

// itemBytes bounds what appendItem appends.
func itemBytes(it *mvcc.Item) int { return len(it.Key) + 4*11 }

// record is a stored KeyValue message.
type record mvcc.Record

// value returns the record's value, which aliases it.
func (r record) value() ([]byte, error) {
	var value []byte
	for b := []byte(r); len(b) > 0; {
		f, rest, err := nextField(b)
		if err != nil {
			return nil, mvcc.ErrCorrupt
		}
		if f.message(fieldKVValue) {
			value = f.bytes
		}
		b = rest
	}
	return value, nil
}

// withoutValue returns a copy of the message that lacks the value. The record
// must have been read with value before.
func (r record) withoutValue() mvcc.Record {
	out := make([]byte, 0, len(r))
	for b := []byte(r); len(b) > 0; {
		f, rest, err := nextField(b)
		if err != nil {
			return out
		}
		if !f.message(fieldKVValue) {
			out = append(out, b[:len(b)-len(rest)]...)
		}
		b = rest
	}
	return out
}
