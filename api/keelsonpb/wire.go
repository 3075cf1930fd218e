// Package keelsonpb is what Keelson's members speak beside etcd's API: a stream
// that carries many calls. pipeline.proto describes it; this is its encoding.
//
// Decoders check everything and follow protobuf's rules: fields in any order, the
// last one wins, unknown ones are skipped. What they return aliases its input.
package keelsonpb

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// PipelineCalls is the full name of the RPC.
const (
	Service       = "keelsonpb.Pipeline"
	Stream        = "Calls"
	PipelineCalls = "/" + Service + "/" + Stream
)

// Method is an RPC that may be called through the stream.
type Method uint32

// The methods.
const (
	Range Method = 1 + iota
	Put
	DeleteRange
	Txn
)

// Limits of a stream. A client that keeps them is always understood.
const (
	// MaxCalls is how many calls of a stream a member has under way.
	MaxCalls = 4096
	// MaxMessage is what a message of calls may have. It lies below what a member
	// accepts, whatever its limit for one request.
	MaxMessage = 256 << 10
)

// Call is one call.
type Call struct {
	ID          uint64
	Method      Method
	NeedsLeader bool
	Request     []byte
}

// Answer is what became of it.
type Answer struct {
	ID         uint64
	Code       uint32
	Message    string
	PushbackMS uint32
	Response   []byte
}

// Numbers of the fields.
const (
	fieldCalls = 1
	fieldEnded = 2

	fieldCallID          = 1
	fieldCallMethod      = 2
	fieldCallNeedsLeader = 3
	fieldCallRequest     = 4

	fieldAnswers  = 1
	fieldDone     = 2
	fieldMaxCalls = 3

	fieldAnswerID       = 1
	fieldAnswerCode     = 2
	fieldAnswerMessage  = 3
	fieldAnswerPushback = 4
	fieldAnswerResponse = 5
)

var errMalformed = errors.New("keelsonpb: malformed message")

// AppendCall appends a call to a message of Requests, up to its request, of which
// size bytes follow.
func AppendCall(b []byte, c Call, size int) []byte {
	n := uintSize(fieldCallID, c.ID) + uintSize(fieldCallMethod, uint64(c.Method))
	if c.NeedsLeader {
		n += 2
	}
	n += protowire.SizeTag(fieldCallRequest) + protowire.SizeBytes(size)
	b = protowire.AppendTag(b, fieldCalls, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = appendUint(b, fieldCallID, c.ID)
	b = appendUint(b, fieldCallMethod, uint64(c.Method))
	if c.NeedsLeader {
		b = appendUint(b, fieldCallNeedsLeader, 1)
	}
	b = protowire.AppendTag(b, fieldCallRequest, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// CallOverhead bounds what AppendCall appends.
const CallOverhead = 2*(1+10) + (1 + 10) + (1 + 5) + 2 + (1 + 10)

// AppendEnded tells that nobody waits for a call's answer any more.
func AppendEnded(b []byte, id uint64) []byte {
	b = protowire.AppendTag(b, fieldEnded, protowire.VarintType)
	return protowire.AppendVarint(b, id)
}

// ReadRequests visits what a message of Requests has, in order. What visit is
// given aliases b.
func ReadRequests(b []byte, call func(Call), ended func(id uint64)) error {
	return each(b, func(f field) error {
		switch {
		case f.is(fieldCalls, protowire.BytesType):
			var c Call
			if err := c.decode(f.bytes); err != nil {
				return err
			}
			call(c)
		case f.is(fieldEnded, protowire.VarintType):
			ended(f.num)
		}
		return nil
	})
}

func (c *Call) decode(b []byte) error {
	return each(b, func(f field) error {
		switch {
		case f.is(fieldCallID, protowire.VarintType):
			c.ID = f.num
		case f.is(fieldCallMethod, protowire.VarintType):
			c.Method = Method(f.num)
		case f.is(fieldCallNeedsLeader, protowire.VarintType):
			c.NeedsLeader = f.num != 0
		case f.is(fieldCallRequest, protowire.BytesType):
			c.Request = f.bytes
		}
		return nil
	})
}

// AppendAnswer appends an answer to a message of Answers, up to its response, of
// which size bytes follow.
func AppendAnswer(b []byte, a Answer, size int) []byte {
	n := uintSize(fieldAnswerID, a.ID) + uintSize(fieldAnswerCode, uint64(a.Code)) + uintSize(fieldAnswerPushback, uint64(a.PushbackMS))
	if a.Message != "" {
		n += protowire.SizeTag(fieldAnswerMessage) + protowire.SizeBytes(len(a.Message))
	}
	n += protowire.SizeTag(fieldAnswerResponse) + protowire.SizeBytes(size)
	b = protowire.AppendTag(b, fieldAnswers, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = appendUint(b, fieldAnswerID, a.ID)
	b = appendUint(b, fieldAnswerCode, uint64(a.Code))
	if a.Message != "" {
		b = protowire.AppendTag(b, fieldAnswerMessage, protowire.BytesType)
		b = protowire.AppendString(b, a.Message)
	}
	b = appendUint(b, fieldAnswerPushback, uint64(a.PushbackMS))
	b = protowire.AppendTag(b, fieldAnswerResponse, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// AppendHello appends the first message of Answers.
func AppendHello(b []byte, maxCalls int) []byte {
	return appendUint(b, fieldMaxCalls, uint64(maxCalls))
}

// AppendDone marks a message of Answers as the last.
func AppendDone(b []byte) []byte { return appendUint(b, fieldDone, 1) }

// ReadAnswers visits the answers of a message. What visit is given aliases b,
// but for Message.
func ReadAnswers(b []byte, visit func(Answer) error) (done bool, maxCalls int, err error) {
	err = each(b, func(f field) error {
		switch {
		case f.is(fieldAnswers, protowire.BytesType):
			var a Answer
			if err := a.decode(f.bytes); err != nil {
				return err
			}
			return visit(a)
		case f.is(fieldDone, protowire.VarintType):
			done = f.num != 0
		case f.is(fieldMaxCalls, protowire.VarintType):
			maxCalls = int(min(f.num, MaxCalls))
		}
		return nil
	})
	return done, maxCalls, err
}

func (a *Answer) decode(b []byte) error {
	return each(b, func(f field) error {
		switch {
		case f.is(fieldAnswerID, protowire.VarintType):
			a.ID = f.num
		case f.is(fieldAnswerCode, protowire.VarintType):
			a.Code = uint32(f.num)
		case f.is(fieldAnswerMessage, protowire.BytesType):
			a.Message = string(f.bytes)
		case f.is(fieldAnswerPushback, protowire.VarintType):
			a.PushbackMS = uint32(f.num)
		case f.is(fieldAnswerResponse, protowire.BytesType):
			a.Response = f.bytes
		}
		return nil
	})
}

// field is one decoded field: a number or bytes.
type field struct {
	number protowire.Number
	kind   protowire.Type
	num    uint64
	bytes  []byte
}

func (f *field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// each visits the fields of a message.
func each(b []byte, visit func(field) error) error {
	for len(b) > 0 {
		var f field
		var n int
		f.number, f.kind, n = protowire.ConsumeTag(b)
		if n < 0 || !f.number.IsValid() {
			return errMalformed
		}
		b = b[n:]
		switch f.kind {
		case protowire.VarintType:
			f.num, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(f.number, f.kind, b)
		}
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// appendUint appends a number unless it is zero.
func appendUint(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, number, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func uintSize(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeVarint(v)
}
