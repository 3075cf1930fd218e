package server

import (
	"context"
	"errors"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
)

// What members ask each other about their histories. Questions and answers are
// protobuf fields, so that later versions can add some.
const (
	callHashKV  uint8 = 10 // kinds of call, of raft.Node.Call
	callRolling uint8 = 11
	callVersion uint8 = 12

	fieldAskedRevision = 1

	fieldHashOutcome  = 1
	fieldHashCurrent  = 2
	fieldHashValue    = 3
	fieldHashCompact  = 4 // one more than the revision: it may be -1
	fieldHashRevision = 5

	hashOK        = 1
	hashCompacted = 2
	hashFuture    = 3

	fieldRollingBase     = 1
	fieldRollingRevision = 2
	fieldRollingValue    = 3
	fieldRollingFirst    = 4
)

// errNoAnswer is an answer that says nothing.
var errNoAnswer = errors.New("the member gave no answer")

func askedRevision(payload []byte) (at api.Revision, err error) {
	for len(payload) > 0 {
		var f field
		if f, payload, err = nextField(payload); err != nil {
			return 0, err
		}
		if f.varint(fieldAskedRevision) {
			at = api.Revision(f.num)
		}
	}
	return at, nil
}

// answerHashKV hashes this member's history for another.
func (u *upkeep) answerHashKV(ctx context.Context, _ api.MemberID, payload []byte) ([]byte, error) {
	at, err := askedRevision(payload)
	if err != nil {
		return nil, err
	}
	h, current, err := u.s.Store().HashKV(ctx, at)
	outcome := hashOK
	switch {
	case errors.Is(err, mvcc.ErrCompacted):
		outcome = hashCompacted
	case errors.Is(err, mvcc.ErrFutureRevision):
		outcome = hashFuture
	case err != nil:
		return nil, err
	}
	b := appendInt(nil, fieldHashOutcome, int64(outcome))
	b = appendInt(b, fieldHashCurrent, int64(current))
	b = appendInt(b, fieldHashValue, int64(h.Hash))
	b = appendInt(b, fieldHashCompact, int64(h.Compact)+1)
	return appendInt(b, fieldHashRevision, int64(h.Revision)), nil
}

// peerHash is another member's hash of its history.
type peerHash struct {
	id      api.MemberID
	hash    mvcc.KVHash
	current api.Revision // its newest revision
	err     error
}

// peerHashes asks all other members for the hash at a revision.
func (u *upkeep) peerHashes(ctx context.Context, at api.Revision) []peerHash {
	answers := u.askAll(ctx, callHashKV, appendInt(nil, fieldAskedRevision, int64(at)))
	out := make([]peerHash, len(answers))
	for i, a := range answers {
		out[i] = decodeHash(a)
	}
	return out
}

func decodeHash(a peerAnswer) peerHash {
	p := peerHash{id: a.id, err: a.err}
	if p.err != nil {
		return p
	}
	outcome := uint64(0)
	p.hash.Compact = -1
	for b := a.body; len(b) > 0; {
		f, rest, err := nextField(b)
		if err != nil {
			p.err = err
			return p
		}
		b = rest
		switch {
		case f.varint(fieldHashOutcome):
			outcome = f.num
		case f.varint(fieldHashCurrent):
			p.current = api.Revision(f.num)
		case f.varint(fieldHashValue):
			p.hash.Hash = uint32(f.num)
		case f.varint(fieldHashCompact):
			p.hash.Compact = api.Revision(f.num) - 1
		case f.varint(fieldHashRevision):
			p.hash.Revision = api.Revision(f.num)
		}
	}
	switch outcome {
	case hashOK:
	case hashCompacted:
		p.err = api.ErrCompacted
	case hashFuture:
		p.err = api.ErrFutureRevision
	default:
		p.err = errNoAnswer
	}
	return p
}

// answerRolling tells another member the rolling hash at a revision, or at the
// newest one before it.
func (u *upkeep) answerRolling(_ context.Context, _ api.MemberID, payload []byte) ([]byte, error) {
	at, err := askedRevision(payload)
	if err != nil {
		return nil, err
	}
	store := u.s.Store()
	h, ok := store.RollingHash(at)
	if !ok {
		return nil, nil
	}
	b := appendInt(nil, fieldRollingBase, int64(h.Base))
	b = appendInt(b, fieldRollingRevision, int64(h.Revision))
	b = appendUint(b, fieldRollingValue, h.Value)
	return appendInt(b, fieldRollingFirst, int64(store.RollingHashFrom())), nil
}

// rollingAnswer is another member's rolling hash.
type rollingAnswer struct {
	mvcc.RollingHash
	member api.MemberID
	first  api.Revision // the oldest it remembers
}

func decodeRolling(a peerAnswer) (rollingAnswer, error) {
	out := rollingAnswer{member: a.id}
	if a.err != nil {
		return out, a.err
	}
	for b := a.body; len(b) > 0; {
		f, rest, err := nextField(b)
		if err != nil {
			return out, err
		}
		b = rest
		switch {
		case f.varint(fieldRollingBase):
			out.Base = api.Revision(f.num)
		case f.varint(fieldRollingRevision):
			out.Revision = api.Revision(f.num)
		case f.varint(fieldRollingValue):
			out.Value = f.num
		case f.varint(fieldRollingFirst):
			out.first = api.Revision(f.num)
		}
	}
	if out.Revision == 0 {
		return out, errNoAnswer
	}
	return out, nil
}
