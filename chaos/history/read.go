package history

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/go-msgpack/v2/codec"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const (
	// maxRecord bounds a record: more than the largest message that a member sends.
	maxRecord = 1 << 28
	// maxFaults, maxWatches and maxNames bound what a reader looks up by number.
	maxNames   = 1 << 16
	maxWatches = 1 << 24
)

// ErrDamaged says that a file is not what a Writer wrote.
var ErrDamaged = errors.New("damaged history")

// Open reads a file. A file that ends inside a record was torn off when its
// writer was killed: what comes before is returned with io.ErrUnexpectedEOF.
func Open(name string) (*History, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Read(f)
}

// Read is Open for what is not a file.
func Read(in io.Reader) (*History, error) {
	h := &History{}
	r, err := newReader(in)
	if err != nil {
		return h, err
	}
	for {
		x, err := r.next(h)
		switch {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil:
			return h, err
		}
		if err := h.apply(x); err != nil {
			return h, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
}

type reader struct {
	in      *bufio.Reader
	body    []byte
	dec     *codec.Decoder
	names   []string
	watches map[int]*Watch
}

func newReader(in io.Reader) (*reader, error) {
	b := bufio.NewReaderSize(in, 1<<18)
	if start, _ := b.Peek(2); bytes.Equal(start, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		b = bufio.NewReaderSize(z, 1<<18)
	}
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(b, start); err != nil || string(start) != magic {
		return nil, fmt.Errorf("%w: it does not begin like one", ErrDamaged)
	}
	return &reader{in: b, dec: codec.NewDecoderBytes(nil, handle()), watches: map[int]*Watch{}}, nil
}

// next decodes one record. Records of watches go into h at once; they give nil.
func (r *reader) next(h *History) (any, error) {
	n, err := binary.ReadUvarint(r.in)
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, torn(err)
	case n == 0 || n > maxRecord:
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrDamaged, n)
	}
	if err := r.read(int(n) + 4); err != nil {
		return nil, torn(err)
	}
	data := r.body[:n]
	if sum := binary.LittleEndian.Uint32(r.body[n:]); sum != crc32.Checksum(data, castagnoli) {
		return nil, fmt.Errorf("%w: the checksum of a record of %d bytes is wrong", ErrDamaged, n)
	}
	x, err := r.decode(h, kind(data[0]), data[1:])
	if err != nil {
		return nil, fmt.Errorf("%w: record of kind %d: %w", ErrDamaged, data[0], err)
	}
	return x, nil
}

// read fills r.body with n bytes. It grows with what is there, whatever n says.
func (r *reader) read(n int) error {
	const step = 1 << 20
	r.body = r.body[:0]
	for len(r.body) < n {
		had := len(r.body)
		more := min(step, n-had)
		if cap(r.body) < had+more {
			r.body = append(make([]byte, 0, max(2*cap(r.body), had+more)), r.body...)
		}
		r.body = r.body[:had+more]
		if _, err := io.ReadFull(r.in, r.body[had:]); err != nil {
			return err
		}
	}
	return nil
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// plain makes the records that are their type's fields.
var plain = map[kind]func() any{
	kindMeta:    func() any { return &Meta{} },
	kindState:   func() any { return &State{} },
	kindFault:   func() any { return &Fault{} },
	kindLeader:  func() any { return &Leader{} },
	kindProbe:   func() any { return &Probe{} },
	kindSample:  func() any { return &Sample{} },
	kindLogLine: func() any { return &LogLine{} },
	kindExit:    func() any { return &Exit{} },
	kindVerdict: func() any { return &Verdict{} },
	kindHealed:  func() any { return &Healed{} },
}

func (r *reader) decode(h *History, k kind, body []byte) (any, error) {
	if newOne := plain[k]; newOne != nil {
		x := newOne()
		return x, r.into(body, x)
	}
	switch k {
	case kindName:
		return nil, r.name(body)
	case kindOp:
		return r.op(body)
	case kindEntry:
		return r.entry(body)
	case kindWatch, kindAnswer, kindWatchEnd:
		return nil, r.watch(h, k, body)
	}
	return nil, nil // of a later writer
}

func (r *reader) into(body []byte, x any) error {
	r.dec.ResetBytes(body)
	return r.dec.Decode(x)
}

func (r *reader) name(body []byte) error {
	var x wireName
	if err := r.into(body, &x); err != nil {
		return err
	}
	if x.N != uint64(len(r.names)) || x.N >= maxNames {
		return fmt.Errorf("name %d after %d names", x.N, len(r.names))
	}
	r.names = append(r.names, x.Text)
	return nil
}

func (r *reader) named(n uint64) (string, error) {
	if n >= uint64(len(r.names)) {
		return "", fmt.Errorf("name %d of %d", n, len(r.names))
	}
	return r.names[n], nil
}

func (r *reader) message(w wireMessage) (proto.Message, error) {
	name, err := r.named(w.Name)
	if err != nil || name == "" {
		return nil, err
	}
	m, err := newMessage(name)
	if err != nil {
		return nil, err
	}
	return m, proto.Unmarshal(w.Body, m)
}

func (r *reader) op(body []byte) (*Op, error) {
	var x wireOp
	if err := r.into(body, &x); err != nil {
		return nil, err
	}
	op := &Op{ID: x.ID, Client: x.Client, Member: x.Member, Call: x.Call, Return: x.Return, Outcome: x.Outcome, Err: x.Err}
	var errs [4]error
	op.Endpoint, errs[0] = r.named(x.Endpoint)
	op.Method, errs[1] = r.named(x.Method)
	op.Request, errs[2] = r.message(x.Request)
	op.Response, errs[3] = r.message(x.Response)
	if op.Request == nil && errs[2] == nil {
		return nil, errors.New("a call without a request")
	}
	return op, errors.Join(errs[:]...)
}

func (r *reader) entry(body []byte) (*Entry, error) {
	var x wireEntry
	if err := r.into(body, &x); err != nil {
		return nil, err
	}
	out := &Entry{Index: x.Index, Term: x.Term}
	for _, c := range x.Commands {
		req, err := r.message(c.Request)
		if err != nil {
			return nil, err
		}
		out.Commands = append(out.Commands, Command{ID: c.ID, Request: req, Leader: c.Leader, Expired: c.Expired, Checkpointed: c.Checkpointed, At: c.At})
	}
	return out, nil
}

func (r *reader) watch(h *History, k kind, body []byte) error {
	switch k {
	case kindWatch:
		var x wireWatch
		if err := r.into(body, &x); err != nil {
			return err
		}
		if r.watches[x.ID] != nil || len(r.watches) >= maxWatches {
			return fmt.Errorf("watch %d is opened twice", x.ID)
		}
		w := &Watch{ID: x.ID, Client: x.Client, Member: x.Member, Opened: x.Opened}
		w.Request = x.Request
		r.watches[x.ID] = w
		h.Watches = append(h.Watches, w)
		h.reach(w.Opened)
	case kindAnswer:
		var x wireAnswer
		if err := r.into(body, &x); err != nil {
			return err
		}
		m := &pb.WatchResponse{}
		if err := proto.Unmarshal(x.Body, m); err != nil {
			return err
		}
		w := r.watches[x.Watch]
		if w == nil {
			return fmt.Errorf("an answer to watch %d, which was never opened", x.Watch)
		}
		w.deliver(x.At, Answer(m))
		h.reach(x.At)
	default:
		var x wireWatchEnd
		if err := r.into(body, &x); err != nil {
			return err
		}
		w := r.watches[x.Watch]
		if w == nil {
			return fmt.Errorf("the end of watch %d, which was never opened", x.Watch)
		}
		w.Ended, w.Err = x.At, x.Err
		h.reach(x.At)
	}
	return nil
}
