package transport

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
)

// A frame is one gRPC message of a control or bulk stream: a seal and records one
// behind another, each
//
//	kind  1 byte
//	len   uvarint
//	body  len bytes
//
// A record of kind recordMessage holds a raft message. One of kind recordForward
// holds a term (uvarint) and a batch of proposals, opaque here.
type recordKind byte

const (
	recordMessage recordKind = 1
	recordForward recordKind = 2
)

// Bounds of a frame, held by the sender and checked by the receiver.
const (
	// frameRecords: a record takes 2 bytes on the wire and about 350 in memory.
	frameRecords = 4096
	// frameTarget: a sender closes a frame that has reached it, so that the
	// receiver starts to work on the first part while the rest is on its way.
	frameTarget = 512 << 10
)

// record is a message or a forwarded batch; it is a message if msg is set.
type record struct {
	msg   *raftpb.Message
	term  api.Term
	batch []byte
	body  int // bytes of the body on the wire
}

func messageRecord(m *raftpb.Message) record {
	return record{msg: m, body: messageSize(m)}
}

func forwardRecord(term api.Term, batch []byte) record {
	return record{term: term, batch: batch, body: protowire.SizeVarint(uint64(term)) + len(batch)}
}

// wireSize is the record's share of a frame.
func (r *record) wireSize() int {
	return 1 + protowire.SizeBytes(r.body)
}

// appendRecord appends the record's wireSize bytes.
func appendRecord(b []byte, r *record) []byte {
	kind := recordForward
	if r.msg != nil {
		kind = recordMessage
	}
	b = protowire.AppendVarint(append(b, byte(kind)), uint64(r.body))
	if r.msg != nil {
		return appendMessageTo(b, r.msg)
	}
	return append(protowire.AppendVarint(b, uint64(r.term)), r.batch...)
}

// decodeFrame hands each record of a frame without its seal to fn. What fn gets
// aliases data, which the caller must give away.
func decodeFrame(data []byte, fn func(record) error) error {
	for n := 0; len(data) > 0; n++ {
		if n == frameRecords {
			return fmt.Errorf("%w: a frame of more than %d records", errMalformed, frameRecords)
		}
		kind := recordKind(data[0])
		body, size := protowire.ConsumeBytes(data[1:])
		if size < 0 {
			return fmt.Errorf("%w: record %d: %w", errMalformed, n, protowire.ParseError(size))
		}
		data = data[1+size:]
		r, err := decodeRecord(kind, body)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func decodeRecord(kind recordKind, body []byte) (record, error) {
	switch kind {
	case recordMessage:
		m, err := decodeMessage(body)
		return record{msg: m, body: len(body)}, err
	case recordForward:
		term, n := protowire.ConsumeVarint(body)
		if n < 0 {
			return record{}, fmt.Errorf("%w: forward: %w", errMalformed, protowire.ParseError(n))
		}
		return record{term: api.Term(term), batch: body[n:], body: len(body)}, nil
	}
	return record{}, fmt.Errorf("%w: a record of kind %d", errMalformed, kind)
}
