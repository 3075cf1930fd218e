package server

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
)

// The busy requests are decoded by hand: a fifth of the allocations of the
// generated code, slices into the body instead of copies, and the same decoder
// serves the RPC and the apply goroutine. The rules are protobuf's: fields in
// any order, the last scalar wins, repeated messages of a singular field merge,
// unknown fields and wrong wire types are skipped. A fuzz test holds the
// decoders equal to the generated ones.

// maxDecodeDepth is protobuf's own bound on nested messages.
const maxDecodeDepth = 10000

var errDecode = errors.New("codec: malformed request")

// field is one decoded field: num is set for varints, bytes for length-delimited
// ones; both are zero for other wire types, which none of our messages has.
type field struct {
	number protowire.Number
	kind   protowire.Type
	num    uint64
	bytes  []byte
}

// nextField cuts the first field off b. Bytes fields alias b.
func nextField(b []byte) (field, []byte, error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number > protowire.MaxValidNumber {
		return field{}, nil, errDecode
	}
	f := field{number: number, kind: kind}
	b = b[n:]
	switch kind {
	case protowire.VarintType:
		f.num, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(number, kind, b)
	}
	if n < 0 {
		return field{}, nil, errDecode
	}
	return f, b[n:], nil
}

func (f *field) varint(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.VarintType
}

func (f *field) message(number protowire.Number) bool {
	return f.number == number && f.kind == protowire.BytesType
}

// rangeRequest is etcdserverpb.RangeRequest.
type rangeRequest struct {
	key, end     []byte
	limit        int64
	revision     api.Revision // as given; <= 0 reads the latest
	sortOrder    int32
	sortTarget   int32
	serializable bool
	keysOnly     bool
	countOnly    bool
	minMod       int64
	maxMod       int64
	minCreate    int64
	maxCreate    int64
}

func (r *rangeRequest) decode(body []byte) error {
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		body = rest
		switch f.kind {
		case protowire.BytesType:
			switch f.number {
			case 1:
				r.key = f.bytes
			case 2:
				r.end = f.bytes
			}
		case protowire.VarintType:
			r.scalar(f)
		}
	}
	return nil
}

func (r *rangeRequest) scalar(f field) {
	switch f.number {
	case 3:
		r.limit = int64(f.num)
	case 4:
		r.revision = api.Revision(f.num)
	case 5:
		r.sortOrder = int32(f.num)
	case 6:
		r.sortTarget = int32(f.num)
	case 7:
		r.serializable = f.num != 0
	case 8:
		r.keysOnly = f.num != 0
	case 9:
		r.countOnly = f.num != 0
	case 10:
		r.minMod = int64(f.num)
	case 11:
		r.maxMod = int64(f.num)
	case 12:
		r.minCreate = int64(f.num)
	case 13:
		r.maxCreate = int64(f.num)
	}
}

// putRequest is etcdserverpb.PutRequest.
type putRequest struct {
	body        []byte // the whole request, when it came by itself
	key, value  []byte
	lease       api.LeaseID
	prevKV      bool
	ignoreValue bool
	ignoreLease bool
}

func (r *putRequest) decode(body []byte) error {
	r.body = body
	return r.merge(body)
}

func (r *putRequest) merge(body []byte) error {
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		body = rest
		switch {
		case f.message(1):
			r.key = f.bytes
		case f.message(2):
			r.value = f.bytes
		case f.varint(3):
			r.lease = api.LeaseID(f.num)
		case f.varint(4):
			r.prevKV = f.num != 0
		case f.varint(5):
			r.ignoreValue = f.num != 0
		case f.varint(6):
			r.ignoreLease = f.num != 0
		}
	}
	return nil
}

// deleteRequest is etcdserverpb.DeleteRangeRequest.
type deleteRequest struct {
	body     []byte // the whole request, when it came by itself
	key, end []byte
	prevKV   bool
}

func (r *deleteRequest) decode(body []byte) error {
	r.body = body
	return r.merge(body)
}

func (r *deleteRequest) merge(body []byte) error {
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		body = rest
		switch {
		case f.message(1):
			r.key = f.bytes
		case f.message(2):
			r.end = f.bytes
		case f.varint(3):
			r.prevKV = f.num != 0
		}
	}
	return nil
}

// The members of the target_union of a Compare are told by their field numbers.
const (
	unionVersion = 4
	unionCreate  = 5
	unionMod     = 6
	unionValue   = 7
	unionLease   = 8
)

// compare is etcdserverpb.Compare.
type compare struct {
	result int32
	target int32
	union  uint8 // field number of the union's member that is set; 0 for none
	num    int64
	value  []byte
	key    []byte
	end    []byte
}

func (c *compare) decode(body []byte) error {
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		body = rest
		switch {
		case f.varint(1):
			c.result = int32(f.num)
		case f.varint(2):
			c.target = int32(f.num)
		case f.message(3):
			c.key = f.bytes
		case f.varint(unionVersion), f.varint(unionCreate), f.varint(unionMod), f.varint(unionLease):
			c.union, c.num, c.value = uint8(f.number), int64(f.num), nil
		case f.message(unionValue):
			c.union, c.num, c.value = unionValue, 0, f.bytes
		case f.message(64):
			c.end = f.bytes
		}
	}
	return nil
}

// op is etcdserverpb.RequestOp: at most one pointer is set.
type op struct {
	rng *rangeRequest
	put *putRequest
	del *deleteRequest
	txn *txnRequest
}

func (o *op) decode(body []byte, depth int) error {
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		body = rest
		if f.kind != protowire.BytesType {
			continue
		}
		if err := o.set(f, depth); err != nil {
			return err
		}
	}
	return nil
}

// set decodes a member of the oneof: the same member twice merges, another one
// replaces it.
func (o *op) set(f field, depth int) error {
	switch f.number {
	case 1:
		if o.rng == nil {
			*o = op{rng: &rangeRequest{}}
		}
		return o.rng.decode(f.bytes)
	case 2:
		if o.put == nil {
			*o = op{put: &putRequest{}}
		}
		return o.put.merge(f.bytes)
	case 3:
		if o.del == nil {
			*o = op{del: &deleteRequest{}}
		}
		return o.del.merge(f.bytes)
	case 4:
		if o.txn == nil {
			*o = op{txn: &txnRequest{}}
		}
		return o.txn.merge(f.bytes, depth+1)
	}
	return nil
}

// txnRequest is etcdserverpb.TxnRequest.
type txnRequest struct {
	body     []byte // the whole request, when it came by itself
	compares []compare
	success  []op
	failure  []op
}

func (r *txnRequest) decode(body []byte) error {
	r.body = body
	return r.merge(body, 1)
}

func (r *txnRequest) merge(body []byte, depth int) error {
	if depth > maxDecodeDepth {
		return errDecode
	}
	for len(body) > 0 {
		f, rest, err := nextField(body)
		if err != nil {
			return err
		}
		body = rest
		if f.kind != protowire.BytesType {
			continue
		}
		switch f.number {
		case 1:
			r.compares = append(r.compares, compare{})
			err = r.compares[len(r.compares)-1].decode(f.bytes)
		case 2:
			r.success = append(r.success, op{})
			err = r.success[len(r.success)-1].decode(f.bytes, depth)
		case 3:
			r.failure = append(r.failure, op{})
			err = r.failure[len(r.failure)-1].decode(f.bytes, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
