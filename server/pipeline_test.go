package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/api/keelsonpb"
)

// piper is the client's side of a pipeline, by hand.
type piper struct {
	t      testing.TB
	stream grpc.ClientStream
	last   uint64
	hello  int
}

func openPiper(ctx context.Context, t testing.TB, conn *grpc.ClientConn) *piper {
	t.Helper()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, keelsonpb.PipelineCalls, grpc.ForceCodecV2(Codec()))
	if err != nil {
		t.Fatal(err)
	}
	p := &piper{t: t, stream: stream}
	var m requests
	if err := stream.RecvMsg(&m); err != nil {
		t.Fatal(err)
	}
	if _, p.hello, err = keelsonpb.ReadAnswers(m.body, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// message is one with these calls.
func (p *piper) message(method keelsonpb.Method, bodies ...[]byte) (b []byte) {
	for _, body := range bodies {
		p.last++
		b = append(keelsonpb.AppendCall(b, keelsonpb.Call{ID: p.last, Method: method, NeedsLeader: true}, len(body)), body...)
	}
	return b
}

func (p *piper) send(b []byte) error { return p.stream.SendMsg(encodeBytes(b)) }

// receive takes one message.
func (p *piper) receive(visit func(keelsonpb.Answer)) (done bool, err error) {
	var m requests
	if err := p.stream.RecvMsg(&m); err != nil {
		return false, err
	}
	done, _, err = keelsonpb.ReadAnswers(m.body, func(a keelsonpb.Answer) error {
		visit(a)
		return nil
	})
	return done, err
}

// collect takes the answers of all calls so far that have none.
func (p *piper) collect(into map[uint64]keelsonpb.Answer) {
	p.t.Helper()
	for uint64(len(into)) < p.last {
		if _, err := p.receive(func(a keelsonpb.Answer) {
			if _, twice := into[a.ID]; twice || a.ID > p.last {
				p.t.Errorf("call %d is answered twice, or was never made", a.ID)
			}
			into[a.ID] = a
		}); err != nil {
			p.t.Fatal(err)
		}
	}
}

type pipedCall struct {
	method keelsonpb.Method
	body   []byte
}

// pipedCalls are calls that end in every way that a handler has. They are made one
// after the other: each depends on the one before.
func pipedCalls(t testing.TB) (out []pipedCall) {
	put := func(r *pb.PutRequest) { out = append(out, pipedCall{keelsonpb.Put, encode(t, r)}) }
	get := func(r *pb.RangeRequest) { out = append(out, pipedCall{keelsonpb.Range, encode(t, r)}) }
	txn := func(r *pb.TxnRequest) { out = append(out, pipedCall{keelsonpb.Txn, encode(t, r)}) }
	del := func(r *pb.DeleteRangeRequest) { out = append(out, pipedCall{keelsonpb.DeleteRange, encode(t, r)}) }
	for _, key := range []string{"a", "b", "r", "z", ""} {
		put(&pb.PutRequest{Key: []byte(key), Value: []byte("1"), PrevKv: key == "b"})
		get(&pb.RangeRequest{Key: []byte(key)})
		get(&pb.RangeRequest{Key: []byte(key), Serializable: true, KeysOnly: true})
		get(&pb.RangeRequest{Key: []byte(key), Revision: 99})
		get(&pb.RangeRequest{Key: []byte(key), RangeEnd: []byte("s")})
		get(&pb.RangeRequest{Key: []byte(key), SortOrder: 7})
		p := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
		g := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
		txn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_VERSION}}, Success: ops(p), Failure: ops(g)})
		txn(&pb.TxnRequest{Success: ops(g)})
		txn(&pb.TxnRequest{Success: ops(p, p)})
		del(&pb.DeleteRangeRequest{Key: []byte(key), PrevKv: true})
	}
	put(&pb.PutRequest{Key: []byte("a"), Lease: 12})
	put(&pb.PutRequest{Key: []byte("a"), Value: []byte("1"), IgnoreValue: true})
	put(&pb.PutRequest{Key: []byte("a"), Value: make([]byte, 5000)}) // above the limit that the test sets
	out = append(out, pipedCall{keelsonpb.Put, []byte{0xff}}, pipedCall{keelsonpb.Txn, []byte{0xff}})
	return out
}

// told is what a member tells of its requests beside the answers.
type told struct {
	*solo
	ctx   context.Context
	audit *lines
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// newTold is a member without or with authentication, whose caller is then ann.
func newTold(t *testing.T, secure bool) *told {
	audit := &lines{}
	hide := func(_ []string, a slog.Attr) slog.Attr {
		if slices.Contains([]string{"time", "took", "remote"}, a.Key) {
			return slog.Attr{}
		}
		return a
	}
	change := func(c *Config) {
		c.MaxRequestBytes = 4000
		c.Audit = Audit{Logger: slog.New(slog.NewTextHandler(audit, &slog.HandlerOptions{ReplaceAttr: hide})), Reads: 1}
	}
	s := &told{audit: audit}
	if secure {
		sec := newSecured(t, change)
		s.solo, s.ctx = sec.solo, sec.as(t, "ann")
	} else {
		s.solo, s.ctx = newSolo(t, change), callContext(t)
	}
	return s
}

// counted are the counters about calls of KV, and the records of the audit log.
func (s *told) counted(t *testing.T) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName() + " " + fmt.Sprint(m.GetLabel())
			if !strings.HasPrefix(name, "grpc_server") && !strings.HasPrefix(name, "etcd_server_proposals") &&
				!strings.HasPrefix(name, "etcd_server_request_duration") || strings.Contains(name, "keelsonpb") {
				continue
			}
			switch {
			case m.Counter != nil:
				out[name] = m.Counter.GetValue()
			case m.Gauge != nil:
				out[name] = m.Gauge.GetValue()
			case m.Histogram != nil:
				out[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	for len(s.Server.audit.queue) > 0 {
		s.Server.audit.write(<-s.Server.audit.queue)
	}
	for _, line := range strings.Split(s.audit.text.String(), "\n") {
		if !strings.Contains(line, "keelsonpb") {
			out[line]++
		}
	}
	return out
}

// TestWays: what a call answers, how it fails, what it counts and what the audit log says of it
// do not depend on how it came: through gRPC's server, below it, or in a pipeline.
func TestWays(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure=%v", secure), func(t *testing.T) {
			alone, below, piped := newTold(t, secure), newTold(t, secure), newTold(t, secure)
			p := openPiper(piped.ctx, t, piped.conn)
			answers := map[uint64]keelsonpb.Answer{}
			for i, c := range pipedCalls(t) {
				name := busyMethods[c.method].name
				var want, got requests
				unary := alone.plain.Invoke(alone.ctx, name, encodeBytes(c.body), &want, grpc.ForceCodecV2(Codec()))
				err := below.conn.Invoke(below.ctx, name, encodeBytes(c.body), &got, grpc.ForceCodecV2(Codec()))
				if status.Convert(err).String() != status.Convert(unary).String() || string(got.body) != string(want.body) {
					t.Errorf("call %d, %s below gRPC: %v %x, in it: %v %x", i, name, err, got.body, unary, want.body)
				}
				if err := p.send(p.message(c.method, c.body)); err != nil {
					t.Fatal(err)
				}
				p.collect(answers)
				a, s := answers[p.last], status.Convert(unary)
				if codes.Code(a.Code) != s.Code() || a.Message != s.Message() || string(a.Response) != string(want.body) {
					t.Errorf("call %d, %s in a pipeline: %v %q %x, in gRPC: %v %x", i, name, codes.Code(a.Code), a.Message, a.Response, unary, want.body)
				}
			}
			want := alone.counted(t)
			for way, have := range map[string]map[string]float64{"below gRPC": below.counted(t), "in a pipeline": piped.counted(t)} {
				for _, name := range slices.Sorted(maps.Keys(want)) {
					if want[name] != have[name] {
						t.Errorf("%s %s: %v, in gRPC: %v", way, name, have[name], want[name])
					}
				}
				if len(have) != len(want) || len(want) < 20 {
					t.Errorf("%s: %d counters and records, in gRPC: %d", way, len(have), len(want))
				}
			}
		})
	}
}

// TestPipelineBatch: the calls of one message are all answered, once each, and
// writes of one message share an entry.
func TestPipelineBatch(t *testing.T) {
	s := newSolo(t)
	p := openPiper(callContext(t), t, s.conn)
	if p.hello != keelsonpb.MaxCalls {
		t.Errorf("the member takes %d calls", p.hello)
	}
	var bodies [][]byte
	for i := range 500 {
		bodies = append(bodies, encode(t, &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, 300)}))
	}
	before := s.log.Status().Applied
	m := p.message(keelsonpb.Put, bodies...)
	for i := range bodies {
		m = append(m, p.message(keelsonpb.Range, encode(t, &pb.RangeRequest{Key: fmt.Appendf(nil, "k%03d", i), Serializable: true}))...)
	}
	if err := p.send(m); err != nil {
		t.Fatal(err)
	}
	answers := map[uint64]keelsonpb.Answer{}
	p.collect(answers)
	revisions := map[int64]bool{}
	for id, a := range answers {
		if a.Code != 0 {
			t.Fatalf("call %d: %s", id, a.Message)
		}
		if id <= 500 {
			var r pb.PutResponse
			if err := proto.Unmarshal(a.Response, &r); err != nil {
				t.Fatal(err)
			}
			revisions[r.Header.Revision] = true
		}
	}
	if len(revisions) != 500 {
		t.Errorf("%d revisions", len(revisions))
	}
	if entries := s.log.Status().Applied - before; entries != 1 {
		t.Errorf("%d entries", entries)
	}
}

// TestPipelineFallsBack: a log that takes no batch now gets its commands one by
// one, and what it refuses then is what the client is told.
func TestPipelineFallsBack(t *testing.T) {
	s := newSolo(t)
	p := openPiper(callContext(t), t, s.conn)
	for _, failure := range []*api.Error{api.ErrTooManyRequests, api.ErrTimeout, api.ErrStopped} {
		s.log.setFailure(failure)
		if err := p.send(p.message(keelsonpb.Put, encode(t, &pb.PutRequest{Key: []byte("k")}), encode(t, &pb.PutRequest{Key: []byte("l")}))); err != nil {
			t.Fatal(err)
		}
		n := 0
		for n < 2 {
			if _, err := p.receive(func(a keelsonpb.Answer) {
				if n++; a.Message != failure.Text || codes.Code(a.Code) != failure.Code {
					t.Errorf("got %+v", a)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestPipelineBadRequests: what no client of ours sends ends the stream, with its
// reason.
func TestPipelineBadRequests(t *testing.T) {
	s := newSolo(t)
	body := encode(t, &pb.RangeRequest{Key: []byte("k")})
	for name, c := range map[string]struct {
		message func(p *piper) []byte
		code    codes.Code
	}{
		"malformed":      {func(*piper) []byte { return []byte{0xff} }, codes.Unknown},
		"unknown method": {func(p *piper) []byte { return p.message(9, body) }, codes.Unimplemented},
		"too large": {func(p *piper) []byte {
			return p.message(keelsonpb.Put, make([]byte, s.cfg.MaxRequestBytes+api.RequestOverheadBytes))
		}, codes.ResourceExhausted},
	} {
		p := openPiper(callContext(t), t, s.conn)
		err := p.send(c.message(p))
		for err == nil {
			_, err = p.receive(func(keelsonpb.Answer) {})
		}
		if status.Code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
