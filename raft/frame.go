package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/keelson-io/keelson/api"
)

// Frames are the payload of log entries and of batches forwarded to a leader:
// msgpack arrays, so that any tool reads them.
//
//	commands  [1, session, seq, [[kind, id, principal, body], …]]
//	change    [2, session, seq, op, member, context]
//
// Session and seq name the frame: session is drawn anew at each start of a
// member, seq counts its frames from 1. The codec is written by hand because
// each command passes here once on every member; it writes and reads plain
// msgpack, which a test checks against a general decoder.
const (
	frameCommands = 1
	frameConf     = 2

	// frameOverhead is the most that a frame adds around its commands, and
	// commandOverhead what a command adds to principal and body.
	frameOverhead   = 32
	commandOverhead = 24
)

var errFrame = errors.New("raft: malformed frame")

// frameKey names a frame for ever.
type frameKey struct{ session, seq uint64 }

// frame is a decoded frame.
type frame struct {
	frameKey
	commands []*Command // when conf is nil
	conf     *confFrame
}

type confFrame struct {
	op      ConfOp
	member  api.MemberID
	context []byte
}

func appendCommandsFrame(b []byte, key frameKey, cmds []*Command) []byte {
	b = append(b, 0x94, frameCommands)
	b = appendUint(b, key.session)
	b = appendUint(b, key.seq)
	b = appendArrayLen(b, len(cmds))
	for _, c := range cmds {
		b = append(b, 0x94)
		b = appendUint(b, uint64(c.Kind))
		b = appendUint(b, c.ID)
		b = appendString(b, c.Principal)
		b = appendBinary(b, c.Body)
	}
	return b
}

func appendConfFrame(b []byte, key frameKey, c *confFrame) []byte {
	b = append(b, 0x96, frameConf)
	b = appendUint(b, key.session)
	b = appendUint(b, key.seq)
	b = appendUint(b, uint64(c.op))
	b = appendUint(b, uint64(c.member))
	return appendBinary(b, c.context)
}

// frameSize is an upper bound of a command's part of a frame.
func (c *Command) frameSize() int { return len(c.Principal) + len(c.Body) + commandOverhead }

func appendUint(b []byte, v uint64) []byte {
	switch {
	case v < 0x80:
		return append(b, byte(v))
	case v <= math.MaxUint8:
		return append(b, 0xcc, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), v)
}

func appendArrayLen(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, 0x90|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
}

func appendString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		b = append(b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

func appendBinary(b, v []byte) []byte {
	switch n := len(v); {
	case n <= math.MaxUint8:
		b = append(b, 0xc4, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xc5), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(n))
	}
	return append(b, v...)
}

// peekFrame reads a frame's name and kind.
func peekFrame(data []byte) (key frameKey, kind uint8, err error) {
	r := frameReader{b: data}
	key, kind = r.header()
	return key, kind, r.err
}

// checkFrame walks a whole frame without allocating. A leader checks what
// another member sent before it becomes an entry that all would fail to apply.
func checkFrame(data []byte) (key frameKey, kind uint8, err error) {
	r := frameReader{b: data}
	key, kind = r.header()
	if kind == frameConf {
		r.conf()
	} else {
		for n := r.arrayLen(); n > 0 && r.err == nil; n-- {
			r.command()
		}
	}
	return key, kind, r.end()
}

// decodeFrame decodes a frame; the result's slices point into data.
func decodeFrame(data []byte) (frame, error) {
	r := frameReader{b: data}
	var f frame
	var kind uint8
	f.frameKey, kind = r.header()
	if kind == frameConf {
		f.conf = r.conf()
		return f, r.end()
	}
	n := r.arrayLen()
	if n > len(r.b)/5 { // the smallest command takes five bytes
		r.fail()
		return f, r.err
	}
	slab := make([]Command, n)
	f.commands = make([]*Command, n)
	principal := "" // mostly the same for many commands
	for i := range slab {
		c := &slab[i]
		var name []byte
		c.Kind, c.ID, name, c.Body = r.command()
		if string(name) != principal {
			principal = string(name)
		}
		c.Principal = principal
		f.commands[i] = c
	}
	return f, r.end()
}

// frameReader reads msgpack; after the first error it yields zero values.
type frameReader struct {
	b   []byte
	err error
}

func (r *frameReader) fail() {
	if r.err == nil {
		r.err = errFrame
	}
	r.b = nil
}

func (r *frameReader) end() error {
	if r.err == nil && len(r.b) != 0 {
		r.err = fmt.Errorf("%w: %d bytes after its end", errFrame, len(r.b))
	}
	return r.err
}

func (r *frameReader) header() (key frameKey, kind uint8) {
	fields := r.arrayLen()
	kind = uint8(r.uint(math.MaxUint8))
	if !(kind == frameCommands && fields == 4 || kind == frameConf && fields == 6) {
		r.fail()
	}
	key.session = r.uint(math.MaxUint64)
	key.seq = r.uint(math.MaxUint64)
	return key, kind
}

func (r *frameReader) conf() *confFrame {
	return &confFrame{
		op:      ConfOp(r.uint(math.MaxUint8)),
		member:  api.MemberID(r.uint(math.MaxUint64)),
		context: r.bytes(),
	}
}

func (r *frameReader) command() (kind uint8, id uint64, principal, body []byte) {
	if r.arrayLen() != 4 {
		r.fail()
	}
	return uint8(r.uint(math.MaxUint8)), r.uint(math.MaxUint64), r.bytes(), r.bytes()
}

// take cuts the next n bytes off.
func (r *frameReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// number reads a big-endian number of the given width.
func (r *frameReader) number(width int) (v uint64) {
	for _, x := range r.take(width) {
		v = v<<8 | uint64(x)
	}
	return v
}

func (r *frameReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *frameReader) uint(most uint64) uint64 {
	tag := r.byte()
	v := uint64(tag)
	switch {
	case tag < 0x80:
	case tag >= 0xcc && tag <= 0xcf:
		v = r.number(1 << (tag - 0xcc))
	default:
		r.fail()
	}
	if v > most {
		r.fail()
		return 0
	}
	return v
}

func (r *frameReader) arrayLen() int {
	switch tag := r.byte(); {
	case tag&0xf0 == 0x90:
		return int(tag & 0x0f)
	case tag == 0xdc:
		return int(r.number(2))
	case tag == 0xdd:
		return int(r.number(4))
	}
	r.fail()
	return 0
}

// bytes reads a string or a binary.
func (r *frameReader) bytes() []byte {
	switch tag := r.byte(); {
	case tag&0xe0 == 0xa0:
		return r.take(int(tag & 0x1f))
	case tag == 0xc4, tag == 0xd9:
		return r.take(int(r.number(1)))
	case tag == 0xc5, tag == 0xda:
		return r.take(int(r.number(2)))
	case tag == 0xc6, tag == 0xdb:
		return r.take(int(r.number(4)))
	}
	r.fail()
	return nil
}
