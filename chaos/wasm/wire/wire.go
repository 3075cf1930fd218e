// Package wire is how a guest, the program in an instance of WebAssembly, talks
// with its host, which is disk, network and clock to it.
//
// A guest asks by Call, an imported function, and has the answer when it returns.
// What comes from the network by itself it reads from a file, Card, as a sequence
// of events: reading a file is the one way in which a goroutine can wait for the
// host while others go on. What the guest writes to Record is kept by the host.
package wire

import (
	"encoding/binary"
	"errors"
)

// Module is the name of the host's module, and its function.
const Module = "keelson"

// Files of a guest beside the standard three.
const (
	Card   = 3 // events of the network
	Record = 4 // the history
)

// Op says what a guest asks for.
type Op uint32

// The questions. Each uses some fields of Request.
const (
	Create Op = iota + 1 // of the disk; N of the answer is a handle
	Open
	Rename
	Remove
	Mkdir
	List // the entries are in Data, as JSON
	Stat
	Free
	Lock   // N is a handle
	Unlock // a handle of Lock
	Size
	Read // Size bytes at most, into Data; Eof when there are fewer
	Write
	Preallocate
	Truncate
	Close
	SyncBegin // N is how long a sync takes now, in nanoseconds: the guest waits, then asks for
	Sync
	SyncDir // after SyncBegin, too

	Listen     // on address Name
	Unlisten   // on address Name
	Dial       // address Name; Handle is the guest's choice, and even
	Send       // Data on connection Handle
	Disconnect // Handle

	Begin // the load begins, and with it its clock: faults may come
)

// Code is how an answer ends.
type Code byte

// The codes. Other failures are told in words.
const (
	OK Code = iota
	Eof
	NotExist
	Exist
	Locked
	NoSpace
	Failed // Data says why
)

// Request is one question.
type Request struct {
	Handle    uint32
	Off, Size int64
	Name, To  string
	Data      []byte
}

// Append encodes the request.
func (r *Request) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, r.Handle)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Off))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Size))
	for _, s := range []string{r.Name, r.To} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return append(b, r.Data...)
}

// ErrShort: bytes of the other side make no sense.
var ErrShort = errors.New("a message is too short")

// DecodeRequest is the inverse of Append; Data is a part of b.
func DecodeRequest(b []byte) (r Request, err error) {
	if len(b) < 20 {
		return r, ErrShort
	}
	r.Handle = binary.LittleEndian.Uint32(b)
	r.Off, r.Size = int64(binary.LittleEndian.Uint64(b[4:])), int64(binary.LittleEndian.Uint64(b[12:]))
	b = b[20:]
	for _, s := range []*string{&r.Name, &r.To} {
		if len(b) < 4 {
			return r, ErrShort
		}
		n := binary.LittleEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) {
			return r, ErrShort
		}
		*s, b = string(b[:n]), b[n:]
	}
	r.Data = b
	return r, nil
}

// ReplyHead is the size of an answer without its data.
const ReplyHead = 9

// Reply is one answer.
type Reply struct {
	Code Code
	N    int64
	Data []byte
}

// Append encodes the reply.
func (r *Reply) Append(b []byte) []byte {
	b = append(b, byte(r.Code))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.N))
	return append(b, r.Data...)
}

// DecodeReply is the inverse of Append; Data is a part of b.
func DecodeReply(b []byte) (r Reply, err error) {
	if len(b) < ReplyHead {
		return r, ErrShort
	}
	return Reply{Code: Code(b[0]), N: int64(binary.LittleEndian.Uint64(b[1:])), Data: b[ReplyHead:]}, nil
}

// Kind says what an event tells.
type Kind byte

// The events. Connections that a guest did not dial have odd numbers.
const (
	Dialed   Kind = iota + 1 // the connection stands
	Refused                  // nobody listens
	Incoming                 // a connection to the address before the space in Data, from the one behind it
	Data
	End    // the other side sends no more
	Reset  // the connection is broken
	Credit // as many bytes as Data says, in decimal, have left the connection's buffer
)

// Event is one thing that happened on the network.
type Event struct {
	Kind Kind
	Conn uint32
	Data []byte
}

// EventHead is the size of an event without its data.
const EventHead = 9

// Append encodes the event.
func (e *Event) Append(b []byte) []byte {
	b = append(b, byte(e.Kind))
	b = binary.LittleEndian.AppendUint32(b, e.Conn)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Data)))
	return append(b, e.Data...)
}

// DecodeEventHead gives the event without its data, and the data's length.
func DecodeEventHead(b [EventHead]byte) (e Event, n uint32) {
	return Event{Kind: Kind(b[0]), Conn: binary.LittleEndian.Uint32(b[1:])}, binary.LittleEndian.Uint32(b[5:])
}

// Window is how many bytes a connection's buffer takes before its writer waits.
const Window = 256 << 10
