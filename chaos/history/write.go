package history

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// magic is a file's first line.
const magic = "keelson chaos history\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Writer appends records to a file. It may be used by many goroutines. The first
// error stays: Close returns it, and what is written after it is dropped.
type Writer struct {
	mu struct {
		sync.Mutex
		out   *bufio.Writer
		close []io.Closer
		names map[string]uint64
		body  []byte
		enc   *codec.Encoder
		err   error
	}
}

// Create makes a file; a name that ends in .gz makes it compressed.
func Create(name string, meta Meta) (*Writer, error) {
	w, err := openWriter(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return nil, err
	}
	w.begin(meta)
	return w, nil
}

// AppendVerdicts writes what oracles said to the end of a file that was closed.
func AppendVerdicts(name string, verdicts []Verdict) error {
	w, err := openWriter(name, os.O_APPEND|os.O_WRONLY)
	if err != nil {
		return err
	}
	each(verdicts, w.Verdict)
	return w.Close()
}

func openWriter(name string, flags int) (*Writer, error) {
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".gz") {
		return newWriter(f, f), nil
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	return newWriter(z, z, f), nil
}

// NewWriter writes to out, which Close does not close.
func NewWriter(out io.Writer, meta Meta) *Writer {
	w := newWriter(out)
	w.begin(meta)
	return w
}

func newWriter(out io.Writer, close ...io.Closer) *Writer {
	w := &Writer{}
	w.mu.out = bufio.NewWriterSize(out, 1<<18)
	w.mu.close = close
	w.mu.names = map[string]uint64{}
	w.mu.enc = codec.NewEncoderBytes(&w.mu.body, handle())
	return w
}

func (w *Writer) begin(meta Meta) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, w.mu.err = w.mu.out.WriteString(magic)
	w.putLocked(kindMeta, &meta)
}

// Close writes what is buffered and closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errors.Join(w.mu.err, w.mu.out.Flush())
	for _, c := range w.mu.close {
		err = errors.Join(err, c.Close())
	}
	if w.mu.err == nil {
		w.mu.err = os.ErrClosed
	}
	w.mu.close = nil
	return err
}

// Op writes a call that has ended.
func (w *Writer) Op(op *Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.putLocked(kindOp, &wireOp{
		ID: op.ID, Client: op.Client, Member: op.Member, Endpoint: w.nameLocked(op.Endpoint), Method: w.nameLocked(op.Method),
		Call: op.Call, Return: op.Return, Outcome: op.Outcome, Err: op.Err,
		Request: w.messageLocked(op.Request), Response: w.messageLocked(op.Response),
	})
}

// Entry writes an entry of the log.
func (w *Writer) Entry(e Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &wireEntry{Index: e.Index, Term: e.Term}
	for _, c := range e.Commands {
		out.Commands = append(out.Commands, wireCommand{
			ID: c.ID, Request: w.messageLocked(c.Request), Leader: c.Leader, Expired: c.Expired, Checkpointed: c.Checkpointed, At: c.At,
		})
	}
	w.putLocked(kindEntry, out)
}

// WatchOpened writes that a watch begins; its number is used in what follows.
func (w *Writer) WatchOpened(x *Watch) {
	w.put(kindWatch, &wireWatch{ID: x.ID, Client: x.Client, Member: x.Member, Opened: x.Opened, Request: x.Request})
}

// WatchAnswer writes one delivery.
func (w *Writer) WatchAnswer(watch int, at time.Duration, r watchcheck.Response) {
	body, err := proto.Marshal(answer(r))
	if err != nil {
		panic(err) // it came over the wire
	}
	w.put(kindAnswer, &wireAnswer{Watch: watch, At: at, Body: body})
}

// WatchEnded writes the end of a watch; cause is "" when its client ended it.
func (w *Writer) WatchEnded(watch int, at time.Duration, cause string) {
	w.put(kindWatchEnd, &wireWatchEnd{Watch: watch, At: at, Err: cause})
}

// Fault writes a fault; once when it begins and, with its End, once more when it
// ends.
func (w *Writer) Fault(f Fault) { w.put(kindFault, &f) }

// Leader writes what a member believes; it need not be new.
func (w *Writer) Leader(l Leader) { w.put(kindLeader, &l) }

// Probe writes a probe.
func (w *Writer) Probe(p Probe) { w.put(kindProbe, &p) }

// Sample writes what a member uses.
func (w *Writer) Sample(s Sample) { w.put(kindSample, &s) }

// LogLine writes what a member printed.
func (w *Writer) LogLine(l LogLine) { w.put(kindLogLine, &l) }

// Exit writes the end of a process.
func (w *Writer) Exit(e Exit) { w.put(kindExit, &e) }

// Healed writes that faults have ended for good.
func (w *Writer) Healed(at time.Duration) { w.put(kindHealed, &Healed{at}) }

// State writes what a member holds at the end.
func (w *Writer) State(s State) { w.put(kindState, &s) }

// Verdict writes what an oracle said.
func (w *Writer) Verdict(v Verdict) { w.put(kindVerdict, &v) }

// History writes all of a history but its Meta.
func (w *Writer) History(h *History) {
	for _, op := range h.Ops {
		w.Op(op)
	}
	for _, e := range h.Log {
		w.Entry(e)
	}
	for _, x := range h.Watches {
		w.watch(x)
	}
	for _, f := range h.Faults {
		w.Fault(*f)
	}
	each(h.States, w.State)
	each(h.Leaders, w.Leader)
	each(h.Probes, w.Probe)
	each(h.Samples, w.Sample)
	each(h.LogLines, w.LogLine)
	each(h.Exits, w.Exit)
	each(h.Verdicts, w.Verdict)
	if h.Healed > 0 {
		w.Healed(h.Healed)
	}
}

func each[T any](all []T, write func(T)) {
	for _, x := range all {
		write(x)
	}
}

func (w *Writer) watch(x *Watch) {
	w.WatchOpened(x)
	for i, r := range x.Responses {
		at := x.Opened
		if i < len(x.At) {
			at = x.At[i]
		}
		w.WatchAnswer(x.ID, at, r)
	}
	if x.Ended > 0 {
		w.WatchEnded(x.ID, x.Ended, x.Err)
	}
}

func (w *Writer) put(k kind, body any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.putLocked(k, body)
}

func (w *Writer) putLocked(k kind, body any) {
	m := &w.mu
	if m.err != nil {
		return
	}
	m.body = m.body[:0]
	m.enc.ResetBytes(&m.body)
	if m.err = m.enc.Encode(body); m.err != nil {
		return
	}
	if len(m.body) > maxRecord {
		m.err = fmt.Errorf("a record of %d bytes", len(m.body))
		return
	}
	head := append(binary.AppendUvarint(nil, uint64(1+len(m.body))), byte(k))
	sum := crc32.Update(crc32.Checksum(head[len(head)-1:], castagnoli), castagnoli, m.body)
	for _, b := range [][]byte{head, m.body, binary.LittleEndian.AppendUint32(nil, sum)} {
		if _, m.err = m.out.Write(b); m.err != nil {
			return
		}
	}
}

// nameLocked gives a name's number, writing the name when it is new.
func (w *Writer) nameLocked(text string) uint64 {
	n, known := w.mu.names[text]
	if !known {
		n = uint64(len(w.mu.names))
		w.mu.names[text] = n
		w.putLocked(kindName, &wireName{N: n, Text: text})
	}
	return n
}

func (w *Writer) messageLocked(m proto.Message) wireMessage {
	if m == nil {
		return wireMessage{Name: w.nameLocked("")}
	}
	body, err := proto.Marshal(m)
	if err != nil && w.mu.err == nil {
		w.mu.err = err
	}
	return wireMessage{Name: w.nameLocked(string(m.ProtoReflect().Descriptor().FullName())), Body: body}
}
