package history

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// everything is a history with one of each.
func everything() *History {
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("1:1 x")}
	w := &Watch{ID: 1, Client: 9, Member: 7, Opened: 1, Ended: 60, Err: "broke"}
	w.Request = watchcheck.Request{Key: []byte("k"), End: []byte{0}, Start: 3, PrevKV: true}
	w.deliver(2, watchcheck.Response{Revision: 4, Created: true})
	w.deliver(30, watchcheck.Response{Revision: 5, Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("k"), ModRevision: 5}}}})
	w.deliver(31, watchcheck.Response{Revision: 6, Progress: true})
	return &History{
		Meta: Meta{Ring: "real", Seed: 5, Began: time.Unix(1700000000, 0).UTC(), Members: []Member{{7, "m1", "127.0.0.1:2379"}}, Drift: 10,
			Election: time.Second, Config: map[string]string{"mix": "kubernetes"}, Replay: "chaos real -seed 5"},
		Ops: []*Op{
			{ID: 1, Client: 2, Member: 7, Endpoint: "m1", Method: "etcdserverpb.KV/Put", Call: 10, Return: 20, Request: put, Outcome: OK,
				Response: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 5, RaftTerm: 2, MemberId: 7}}},
			{ID: 2, Client: 3, Endpoint: "m1", Method: "etcdserverpb.KV/Put", Call: 11, Return: 90, Request: put, Outcome: Unknown, Err: "gone"},
		},
		Log: []Entry{{Index: 4, Term: 2, Commands: []Command{
			{ID: 8, Request: put, At: 15}, {Leader: 2, Expired: []Lease{{ID: 3}}, Checkpointed: []Lease{{ID: 4, Remaining: 9}}},
		}}},
		Watches: []*Watch{w},
		States: []State{{Member: 7, Index: 4, Revision: 5, Compact: -1, Hash: 99, Keys: []KV{{Key: "k", Value: "1:1 x", Create: 5, Mod: 5, Version: 1}},
			Leases: map[int64]int64{4: 60}, Rows: map[string]string{"auth/1": "x"}}},
		Faults:   []*Fault{{ID: 1, Kind: "kill", Member: 7, Text: "kill m1", Begin: 40, End: 50}},
		Leaders:  []Leader{{At: 5, Member: 7, Leader: 7, Term: 2}},
		Probes:   []Probe{{Member: 7, Call: 6, Return: 8, OK: true}},
		Samples:  []Sample{{At: 70, Member: 7, RSS: 1 << 20, Goroutines: 50, Files: 20, Disk: 4096}},
		LogLines: []LogLine{{At: 41, Member: 7, Level: "WARN", Text: "slow"}},
		Exits:    []Exit{{At: 41, Member: 7, Code: -1, Signal: "killed", Wanted: true}},
		Verdicts: []Verdict{{Oracle: "O1", Findings: []string{"no"}, Took: 3}},
		Healed:   80, End: 90,
	}
}

func write(t testing.TB, h *History) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, h.Meta)
	w.History(h)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// same compares two histories by what they print and, messages aside, field by
// field.
func same(t *testing.T, got, want *History) {
	t.Helper()
	words := func(h *History) string {
		var b strings.Builder
		if err := h.Show(&b, 0, time.Hour, false); err != nil {
			t.Fatal(err)
		}
		for _, e := range h.Log {
			for _, c := range e.Commands {
				if c.Request != nil {
					b.WriteString(prototext.Format(c.Request))
				}
			}
		}
		return strings.ReplaceAll(b.String(), "  ", " ") // prototext varies its spaces
	}
	if g, w := words(got), words(want); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	bare := func(h *History) History {
		c := *h
		c.Ops, c.Log, c.Watches = nil, nil, nil
		c.Began = c.Began.UTC()
		return c
	}
	if g, w := bare(got), bare(want); !reflect.DeepEqual(g, w) {
		t.Errorf("got\n%+v\nwant\n%+v", g, w)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, name := range []string{"plain", "small.gz"} {
		path := filepath.Join(t.TempDir(), name)
		w, err := Create(path, everything().Meta)
		if err != nil {
			t.Fatal(err)
		}
		w.History(everything())
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		h, err := Open(path)
		if err != nil {
			t.Fatal(name, err)
		}
		same(t, h, everything())
		more := Verdict{Oracle: "O4", Took: 5}
		if err := AppendVerdicts(path, []Verdict{more}); err != nil {
			t.Fatal(err)
		}
		if h, err = Open(path); err != nil || len(h.Verdicts) != 2 || !reflect.DeepEqual(h.Verdicts[1], more) {
			t.Fatalf("%s: %v, verdicts %v", name, err, h.Verdicts)
		}
	}
}

// TestTorn cuts a file anywhere: what is before the cut is read, and the cut is
// told unless it is between records.
func TestTorn(t *testing.T) {
	whole := write(t, everything())
	for n := range whole {
		h, err := Read(bytes.NewReader(whole[:n]))
		if n < len(magic) {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d bytes: %v", n, err)
			}
			continue
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if len(h.Ops) > 2 || n > 2*len(whole)/3 && len(h.Ops) == 0 {
			t.Fatalf("%d bytes of %d: %d calls", n, len(whole), len(h.Ops))
		}
	}
}

// TestDamage flips each bit: nothing is taken for what was written.
func TestDamage(t *testing.T) {
	whole := write(t, everything())
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		if _, err := Read(bytes.NewReader(b)); err == nil {
			t.Fatalf("byte %d of %d can be changed unseen", i, len(whole))
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, everything()))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := Read(bytes.NewReader(write(t, h))); err != nil {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
	})
}

// TestRecorder has many goroutines record; a call that never returns is unknown.
func TestRecorder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	w, err := Create(path, Meta{Ring: "test"})
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder(w)
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			for range 50 {
				c := r.Call(client, 1, "a", "etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("k")})
				c.Return(&pb.PutResponse{Header: &pb.ResponseHeader{MemberId: 3}}, OK, nil)
			}
			watch := r.Watch(client, 1, &pb.WatchCreateRequest{Key: []byte("k"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})
			watch.Told(&pb.WatchResponse{Created: true})
			watch.Ended(nil)
		})
	}
	wg.Wait()
	f := r.Begin("kill", 1, "kill m1")
	r.End(f)
	r.Call(9, 1, "a", "etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("k")})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Ops) != 401 || len(h.Watches) != 8 || len(h.Faults) != 1 || h.Faults[0].End < h.Faults[0].Begin {
		t.Errorf("%d calls, %d watches, faults %v", len(h.Ops), len(h.Watches), h.Faults)
	}
	if last := h.Ops[400]; last.Outcome != Unknown || last.Client != 9 {
		t.Errorf("the call that was under way: %+v", last)
	}
	if op := h.Ops[0]; op.Member != 3 || op.Return < op.Call || !h.Watches[0].Request.NoPut {
		t.Errorf("%+v", op)
	}
	r.Op(h.Ops[0])
	if err := r.Writer.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

func TestOutcomeOf(t *testing.T) {
	for want, errs := range map[Outcome][]error{
		OK:      {nil},
		Refused: {status.Error(codes.InvalidArgument, ""), status.Error(codes.ResourceExhausted, "")},
		Unknown: {context.DeadlineExceeded, status.Error(codes.Unavailable, ""), errors.New("else")},
	} {
		for _, err := range errs {
			if got := OutcomeOf(err); got != want {
				t.Errorf("%v is %s, want %s", err, got, want)
			}
		}
	}
}
