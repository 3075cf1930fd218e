package transport

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// The wire form of a raft message is its protobuf encoding, byte for byte what
// proto.Marshal gives. It is written by hand because this is the hottest code
// between members: one pass, no reflection, and a decoded message is one
// allocation (two with entries) instead of one for each optional field.

// errMalformed is wrapped by all decoders of peer bytes.
var errMalformed = errors.New("malformed bytes from a peer")

// maxEntries bounds what a small frame can make the decoder allocate: an entry
// takes 2 bytes on the wire and about 150 in memory.
const maxEntries = 1 << 17

// Fields of raftpb.Message and raftpb.Entry.
const (
	fieldType       = 1
	fieldTo         = 2
	fieldFrom       = 3
	fieldTerm       = 4
	fieldLogTerm    = 5
	fieldIndex      = 6
	fieldEntries    = 7
	fieldCommit     = 8
	fieldSnapshot   = 9
	fieldReject     = 10
	fieldRejectHint = 11
	fieldContext    = 12
	fieldVote       = 13
	fieldResponses  = 14

	fieldEntryType  = 1
	fieldEntryTerm  = 2
	fieldEntryIndex = 3
	fieldEntryData  = 4
)

// overWire lists the message types that one member sends another. The others
// are a member's talk to itself, proposals (which travel as forwards) and
// snapshots (which have a stream of their own).
var overWire = [...]bool{
	raftpb.MsgApp: true, raftpb.MsgAppResp: true,
	raftpb.MsgVote: true, raftpb.MsgVoteResp: true,
	raftpb.MsgPreVote: true, raftpb.MsgPreVoteResp: true,
	raftpb.MsgHeartbeat: true, raftpb.MsgHeartbeatResp: true,
	raftpb.MsgReadIndex: true, raftpb.MsgReadIndexResp: true,
	raftpb.MsgTransferLeader: true, raftpb.MsgTimeoutNow: true,
}

func travels(t raftpb.MessageType) bool {
	return t >= 0 && int(t) < len(overWire) && overWire[t]
}

func varintSize(v *uint64) int {
	if v == nil {
		return 0
	}
	return 1 + protowire.SizeVarint(*v) // all field numbers are below 16
}

func entrySize(e *raftpb.Entry) int {
	n := varintSize(e.Term) + varintSize(e.Index)
	if e.Type != nil {
		n += 1 + protowire.SizeVarint(uint64(*e.Type))
	}
	if e.Data != nil {
		n += 1 + protowire.SizeBytes(len(e.Data))
	}
	return n
}

// messageSize is the length of what appendMessageTo appends.
func messageSize(m *raftpb.Message) int {
	n := varintSize(m.To) + varintSize(m.From) + varintSize(m.Term) + varintSize(m.LogTerm) +
		varintSize(m.Index) + varintSize(m.Commit) + varintSize(m.Vote) + varintSize(m.RejectHint)
	if m.Type != nil {
		n += 1 + protowire.SizeVarint(uint64(*m.Type))
	}
	for _, e := range m.Entries {
		n += 1 + protowire.SizeBytes(entrySize(e))
	}
	if m.Reject != nil {
		n += 2
	}
	if m.Context != nil {
		n += 1 + protowire.SizeBytes(len(m.Context))
	}
	return n
}

func appendVarint(b []byte, field protowire.Number, v *uint64) []byte {
	if v == nil {
		return b
	}
	return protowire.AppendVarint(append(b, byte(field<<3)|byte(protowire.VarintType)), *v)
}

func appendField(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(append(b, byte(field<<3)|byte(protowire.VarintType)), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(append(b, byte(field<<3)|byte(protowire.BytesType)), v)
}

// appendMessageTo appends the message. Its Snapshot and Responses are left out:
// a snapshot has a stream of its own, responses never leave the member.
func appendMessageTo(b []byte, m *raftpb.Message) []byte {
	if m.Type != nil {
		b = appendField(b, fieldType, uint64(*m.Type))
	}
	b = appendVarint(b, fieldTo, m.To)
	b = appendVarint(b, fieldFrom, m.From)
	b = appendVarint(b, fieldTerm, m.Term)
	b = appendVarint(b, fieldLogTerm, m.LogTerm)
	b = appendVarint(b, fieldIndex, m.Index)
	for _, e := range m.Entries {
		b = append(b, fieldEntries<<3|byte(protowire.BytesType))
		b = appendEntryTo(protowire.AppendVarint(b, uint64(entrySize(e))), e)
	}
	b = appendVarint(b, fieldCommit, m.Commit)
	if m.Reject != nil {
		b = appendField(b, fieldReject, protowire.EncodeBool(*m.Reject))
	}
	b = appendVarint(b, fieldRejectHint, m.RejectHint)
	if m.Context != nil {
		b = appendBytes(b, fieldContext, m.Context)
	}
	return appendVarint(b, fieldVote, m.Vote)
}

func appendEntryTo(b []byte, e *raftpb.Entry) []byte {
	if e.Type != nil {
		b = appendField(b, fieldEntryType, uint64(*e.Type))
	}
	b = appendVarint(b, fieldEntryTerm, e.Term)
	b = appendVarint(b, fieldEntryIndex, e.Index)
	if e.Data != nil {
		b = appendBytes(b, fieldEntryData, e.Data)
	}
	return b
}

// messageBlock holds a decoded message and what its optional fields point to.
type messageBlock struct {
	m                                                        raftpb.Message
	typ                                                      raftpb.MessageType
	to, from, term, logTerm, index, commit, vote, rejectHint uint64
	reject                                                   bool
}

// number returns where a varint field of the message lives, and the optional
// pointer that marks it as present.
func (b *messageBlock) number(field protowire.Number) (*uint64, **uint64) {
	switch field {
	case fieldTo:
		return &b.to, &b.m.To
	case fieldFrom:
		return &b.from, &b.m.From
	case fieldTerm:
		return &b.term, &b.m.Term
	case fieldLogTerm:
		return &b.logTerm, &b.m.LogTerm
	case fieldIndex:
		return &b.index, &b.m.Index
	case fieldCommit:
		return &b.commit, &b.m.Commit
	case fieldVote:
		return &b.vote, &b.m.Vote
	case fieldRejectHint:
		return &b.rejectHint, &b.m.RejectHint
	}
	return nil, nil
}

// entryBlock holds a decoded entry and what its optional fields point to.
type entryBlock struct {
	e           raftpb.Entry
	typ         raftpb.EntryType
	term, index uint64
}

// field is one decoded protobuf field; exactly one of v and body has meaning.
type field struct {
	num  protowire.Number
	kind protowire.Type
	v    uint64
	body []byte
}

// nextField takes one field off b. Fields of other wire types than varint and
// bytes keep only their number.
func nextField(b []byte) (field, []byte, error) {
	num, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return field{}, nil, fmt.Errorf("%w: tag: %w", errMalformed, protowire.ParseError(n))
	}
	if num > protowire.MaxValidNumber {
		return field{}, nil, fmt.Errorf("%w: field number %d", errMalformed, num)
	}
	f := field{num: num, kind: kind}
	b = b[n:]
	switch kind {
	case protowire.VarintType:
		f.v, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.body, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(num, kind, b)
	}
	if n < 0 {
		return field{}, nil, fmt.Errorf("%w: field %d: %w", errMalformed, num, protowire.ParseError(n))
	}
	return f, b[n:], nil
}

// decodeMessage decodes a message whose byte fields alias data: the caller must
// give data away. Fields that it does not know are skipped, so that a later
// version may add some.
func decodeMessage(data []byte) (*raftpb.Message, error) {
	count, err := countEntries(data)
	if err != nil {
		return nil, err
	}
	b := &messageBlock{}
	var entries []entryBlock
	if count > 0 {
		entries = make([]entryBlock, count)
		b.m.Entries = make([]*raftpb.Entry, 0, count)
	}
	for len(data) > 0 {
		var f field
		if f, data, err = nextField(data); err != nil {
			return nil, err
		}
		if f.kind == protowire.VarintType {
			b.setNumber(f)
			continue
		}
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.num {
		case fieldEntries:
			e := &entries[len(b.m.Entries)]
			if err := e.decode(f.body); err != nil {
				return nil, err
			}
			b.m.Entries = append(b.m.Entries, &e.e)
		case fieldContext:
			b.m.Context = f.body
		case fieldSnapshot, fieldResponses:
			return nil, fmt.Errorf("%w: a message with field %d", errMalformed, f.num)
		}
	}
	if !travels(b.m.GetType()) {
		return nil, fmt.Errorf("%w: a message of type %s", errMalformed, b.m.GetType())
	}
	return &b.m, nil
}

func (b *messageBlock) setNumber(f field) {
	switch f.num {
	case fieldType:
		b.typ = raftpb.MessageType(f.v)
		b.m.Type = &b.typ
	case fieldReject:
		b.reject = protowire.DecodeBool(f.v)
		b.m.Reject = &b.reject
	default:
		if value, present := b.number(f.num); value != nil {
			*value, *present = f.v, value
		}
	}
}

// countEntries walks over the top level only, so that the entries can be
// allocated at once.
func countEntries(data []byte) (int, error) {
	count := 0
	for len(data) > 0 {
		f, rest, err := nextField(data)
		if err != nil {
			return 0, err
		}
		if f.num == fieldEntries && f.kind == protowire.BytesType {
			count++
		}
		data = rest
	}
	if count > maxEntries {
		return 0, fmt.Errorf("%w: %d entries in a message", errMalformed, count)
	}
	return count, nil
}

func (b *entryBlock) decode(data []byte) error {
	for len(data) > 0 {
		f, rest, err := nextField(data)
		if err != nil {
			return err
		}
		data = rest
		switch {
		case f.num == fieldEntryType && f.kind == protowire.VarintType:
			b.typ = raftpb.EntryType(f.v)
			b.e.Type = &b.typ
		case f.num == fieldEntryTerm && f.kind == protowire.VarintType:
			b.term = f.v
			b.e.Term = &b.term
		case f.num == fieldEntryIndex && f.kind == protowire.VarintType:
			b.index = f.v
			b.e.Index = &b.index
		case f.num == fieldEntryData && f.kind == protowire.BytesType:
			b.e.Data = f.body
		}
	}
	return nil
}
