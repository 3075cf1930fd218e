package kinds

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is in the chain of every error that says that a value is not
// what it claims to be.
var ErrMalformed = errors.New("malformed object")

// Wire types of protobuf.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// element is one field as it is on the wire.
type element struct {
	number, wire int
	value        uint64 // varint and fixed
	bytes        []byte // wireBytes; else the field's own bytes
}

// next takes the first element off b, which is not empty.
func next(b []byte) (e element, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return e, nil, fmt.Errorf("%w: tag", ErrMalformed)
	}
	e.number, e.wire = int(tag>>3), int(tag&7)
	start := b
	b = b[n:]
	size := 0
	switch e.wire {
	case wireVarint:
		if e.value, size = binary.Uvarint(b); size <= 0 {
			return e, nil, fmt.Errorf("%w: number in field %d", ErrMalformed, e.number)
		}
	case wireFixed8:
		if size = 8; len(b) >= size {
			e.value = binary.LittleEndian.Uint64(b)
		}
	case wireFixed4:
		if size = 4; len(b) >= size {
			e.value = uint64(binary.LittleEndian.Uint32(b))
		}
	case wireBytes:
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			return e, nil, fmt.Errorf("%w: length of field %d", ErrMalformed, e.number)
		}
		e.bytes, size = b[n:n+int(l)], n+int(l)
	default:
		return e, nil, fmt.Errorf("%w: wire type %d of field %d", ErrMalformed, e.wire, e.number)
	}
	if size > len(b) {
		return e, nil, fmt.Errorf("%w: field %d is cut off", ErrMalformed, e.number)
	}
	if e.wire != wireBytes {
		e.bytes = start[n : n+size]
	}
	return e, b[size:], nil
}

// each calls f for the elements of a message, in order.
func each(b []byte, f func(element) error) error {
	for len(b) > 0 {
		e, rest, err := next(b)
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}
