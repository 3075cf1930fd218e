package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/api/keelsonpb"
)

func newHeld(t testing.TB) *solo {
	s := newSolo(t)
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.mu.hold = true
	return s
}

func (s *solo) pending(t testing.TB) (n float64) {
	t.Helper()
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "etcd_server_proposals_pending" {
			n = f.Metric[0].Gauge.GetValue()
		}
	}
	return n
}

func puts(t testing.TB, n int) (out [][]byte) {
	for i := range n {
		out = append(out, encode(t, &pb.PutRequest{Key: fmt.Appendf(nil, "k%05d", i), Value: []byte("v")}))
	}
	return out
}

// TestPipelineTooMany: a message with more calls than may be under way at once
// does not wait for itself.
func TestPipelineTooMany(t *testing.T) {
	s := newSolo(t)
	p := openPiper(callContext(t), t, s.conn)
	const n = keelsonpb.MaxCalls + 100
	if err := p.send(p.message(keelsonpb.Put, puts(t, n)...)); err != nil {
		t.Fatal(err)
	}
	answers := map[uint64]keelsonpb.Answer{}
	p.collect(answers)
	if len(answers) != n {
		t.Errorf("%d of %d calls were answered", len(answers), n)
	}
}

// TestPipelineStops: a member that is to stop answers what it has begun, begins
// nothing more, and says so last.
func TestPipelineStops(t *testing.T) {
	s := newHeld(t)
	p := openPiper(callContext(t), t, s.conn)
	if err := p.send(p.message(keelsonpb.Put, puts(t, 10)...)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the commands", func() bool { return s.log.waiting() == 10 })
	s.led.cutAll(false)
	// These may be begun, if they come before the member has noticed: then they are
	// answered.
	if err := p.send(p.message(keelsonpb.Put, puts(t, 10)...)); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	answered := map[uint64]bool{}
	last := false
	var end error
	over := make(chan struct{})
	go func() {
		defer close(over)
		for end == nil {
			if last {
				_, end = p.receive(func(a keelsonpb.Answer) { t.Errorf("call %d is answered after the last message", a.ID) })
				continue
			}
			last, end = p.receive(func(a keelsonpb.Answer) { answered[a.ID] = true })
		}
	}()
	waitFor(t, "the end of the stream", func() bool {
		if s.log.waiting() > 0 {
			s.log.letGo()
		}
		select {
		case <-over:
			return true
		default:
			return false
		}
	})
	if !last {
		t.Errorf("the stream ended without its last message: %v", end)
	}
	tx, err := s.store.Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Release()
	if n := tx.Count([]byte("k"), []byte("l")); len(answered) < 10 || n != len(answered) && n != 10 {
		t.Errorf("%d calls are answered, %d keys written", len(answered), n)
	}
	for id := uint64(1); id <= 10; id++ {
		if !answered[id] {
			t.Errorf("call %d was begun and is not answered", id)
		}
	}
}

// TestPipelineLeft: calls that the client gives up, by themselves or with their
// stream, leave nothing behind: no slot, no pending command, no goroutine that
// the server would wait for.
func TestPipelineLeft(t *testing.T) {
	s := newHeld(t)
	for _, whole := range []bool{false, true} {
		ctx, cancel := context.WithCancel(callContext(t))
		p := openPiper(ctx, t, s.conn)
		m := p.message(keelsonpb.Put, puts(t, 100)...)
		if err := p.send(m); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the commands", func() bool { return s.log.waiting() == 100 })
		left := 100
		if whole {
			cancel()
		} else {
			left = 60
			var b []byte
			for id := range uint64(left) {
				b = keelsonpb.AppendEnded(b, id+1)
			}
			if err := p.send(b); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "the calls to be given up", func() bool { return s.pending(t) == float64(100-left) })
		s.log.letGo()
		waitFor(t, "the others to end", func() bool { return s.pending(t) == 0 && running(s) == 0 })
		cancel()
	}
}

// TestDirectLeft: calls below gRPC that their clients give up, or whose time is over, leave
// nothing behind.
func TestDirectLeft(t *testing.T) {
	s := newHeld(t)
	ctx, cancel := context.WithCancel(callContext(t))
	timed, stop := context.WithTimeout(callContext(t), time.Hour) // of the member's clock
	defer stop()
	var wait sync.WaitGroup
	for i := range 100 {
		ctx := []context.Context{ctx, timed}[i%2]
		wait.Go(func() {
			_, err := s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i)})
			want := []codes.Code{codes.Canceled, codes.Unavailable}[i%2]
			if status.Code(err) != want || want == codes.Unavailable && !strings.Contains(err.Error(), "request timed out") {
				t.Errorf("put %d: %v", i, err)
			}
		})
	}
	waitFor(t, "the commands", func() bool { return s.log.waiting() == 100 })
	cancel()
	waitFor(t, "half of them to be given up", func() bool { return s.pending(t) == 50 })
	s.clock.Advance(2 * time.Hour)
	waitFor(t, "the others to time out", func() bool { return s.pending(t) == 0 })
	wait.Wait()
	s.log.letGo()
	waitFor(t, "the end", func() bool { return running(s) == 0 })
}

// TestReadsLeft: reads that wait for proof, and that their clients give up, by themselves or with
// their stream or connection, leave nothing behind before there is proof, and are not answered
// after it; the others are.
func TestReadsLeft(t *testing.T) {
	s := newSolo(t)
	if _, err := s.kv.Put(callContext(t), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	for _, end := range []error{nil, api.ErrTimeout} {
		s.log.holdReads(true)
		ctx, cancel := context.WithCancel(callContext(t))
		get := &pb.RangeRequest{Key: []byte("k")}
		stays, goes := openPiper(callContext(t), t, s.conn), openPiper(ctx, t, s.conn)
		for _, p := range []*piper{stays, goes} {
			if err := p.send(p.message(keelsonpb.Range, encode(t, get), encode(t, get))); err != nil {
				t.Fatal(err)
			}
		}
		var wait sync.WaitGroup
		for i := range 4 {
			ctx, want := ctx, codes.Canceled
			if i%2 == 0 {
				ctx, want = callContext(t), status.Code(rpcError(end))
			}
			wait.Go(func() {
				if _, err := s.kv.Range(ctx, get); status.Code(err) != want {
					t.Errorf("read %d: %v, want %v", i, err, want)
				}
			})
		}
		waitFor(t, "the reads", func() bool { return running(s) == 8 })
		if err := stays.send(keelsonpb.AppendEnded(nil, 1)); err != nil {
			t.Fatal(err)
		}
		cancel()
		waitFor(t, "five of them to be given up", func() bool { return running(s) == 3 })
		s.log.letReadsGo(end)
		wait.Wait()
		answers := map[uint64]keelsonpb.Answer{}
		stays.collect(answers)
		if got := answers[1].Code; codes.Code(got) != codes.Canceled {
			t.Errorf("the call that was given up ended with %v", codes.Code(got))
		}
		if got := answers[2].Code; codes.Code(got) != status.Code(rpcError(end)) {
			t.Errorf("the other one ended with %v", codes.Code(got))
		}
		waitFor(t, "the end", func() bool { return running(s) == 0 })
		s.log.holdReads(false)
	}
	if resp, err := s.kv.Range(callContext(t), &pb.RangeRequest{Key: []byte("k")}); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("a read after that: %v, %v", resp, err)
	}
}

// TestReadsOutliveWorkers: when there are no workers any more, calls end all the same.
func TestReadsOutliveWorkers(t *testing.T) {
	s := newSolo(t)
	s.log.holdReads(true)
	ended := make(chan *call, 2)
	n := intake{s: s.Server, workers: newWorkers(), ended: func(c *call) { ended <- c }, awaitRoom: func() {}}
	c, left := n.newCall(&busyMethods[keelsonpb.Range]), n.newCall(&busyMethods[keelsonpb.Range])
	if left.leave(context.Canceled); left.wait() {
		t.Error("a call that was given up before waits")
	}
	if !c.wait() {
		t.Fatal("somebody has left")
	}
	n.readAfterBarrier([]*call{c})
	n.workers.stop()
	s.log.letReadsGo(nil)
	n.alone(left)
	for _, want := range []*call{c, left} {
		if c := <-ended; c != want || status.Code(c.err) != codes.Canceled {
			t.Errorf("it ended with %v", c.err)
		}
	}
}

// TestDirectTimedRead: a read that waits for proof ends by the member's clock, as one that is late.
func TestDirectTimedRead(t *testing.T) {
	s := newSolo(t)
	s.log.holdReads(true)
	ctx, stop := context.WithTimeout(callContext(t), time.Hour)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		ended <- err
	}()
	waitFor(t, "the read", func() bool { return running(s) == 1 })
	s.clock.Advance(2 * time.Hour)
	if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("it ended with %v", err)
	}
	if slow := testutil.ToFloat64(s.metrics.log.readsSlow); slow != 1 {
		t.Errorf("%v slow reads are counted", slow)
	}
}

// running is how many requests have a slot.
func running(s *solo) (n int) {
	families, _ := s.metrics.registry.Gather()
	for _, f := range families {
		if f.GetName() == "keelson_admission_running" {
			for _, m := range f.Metric {
				n += int(m.Gauge.GetValue())
			}
		}
	}
	return n
}

// TestPipelineSlowReader: a client that sends calls and reads no answers is held
// back, with a bounded number of calls under way and of bytes that wait for it; when
// it reads, it gets every answer.
func TestPipelineSlowReader(t *testing.T) {
	s := newSolo(t)
	const value, calls = 16 << 10, keelsonpb.MaxCalls + 1024
	if _, err := s.kv.Put(callContext(t), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, value)}); err != nil {
		t.Fatal(err)
	}
	p := openPiper(callContext(t), t, s.conn)
	get := encode(t, &pb.RangeRequest{Key: []byte("k")})
	var messages [][]byte
	for p.last < calls {
		var bodies [][]byte
		for range 256 {
			bodies = append(bodies, get)
		}
		messages = append(messages, p.message(keelsonpb.Range, bodies...))
	}
	sent := make(chan error, 1)
	go func() {
		for _, m := range messages {
			if err := p.send(m); err != nil {
				sent <- err
				return
			}
		}
		sent <- p.stream.CloseSend()
	}()
	count := func(name string) (n float64) {
		families, _ := s.metrics.registry.Gather()
		for _, f := range families {
			for _, m := range f.Metric {
				for _, l := range m.Label {
					if f.GetName() == name && l.GetValue() == "Range" {
						n += m.Counter.GetValue()
					}
				}
			}
		}
		return n
	}
	// Answers that gRPC took, and those that may wait here; what HTTP/2 buffers is
	// less than another maxUnsent.
	most := float64(2 * maxUnsent / value)
	waitFor(t, "the calls to begin", func() bool { return count("grpc_server_started_total") >= keelsonpb.MaxCalls })
	waitFor(t, "the member to be held back", func() bool { return count("grpc_server_handled_total") > 0 })
	if begun, done := count("grpc_server_started_total"), count("grpc_server_handled_total"); begun > keelsonpb.MaxCalls+most || done > most {
		t.Errorf("%v calls were begun and %v answered that nobody reads", begun, done)
	}
	answers, last := 0, false
	for !last {
		var err error
		if last, err = p.receive(func(a keelsonpb.Answer) {
			if answers++; len(a.Response) < value || a.Code != 0 {
				t.Errorf("%d bytes: %s", len(a.Response), a.Message)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if answers != len(messages)*256 {
		t.Errorf("%d answers to %d calls", answers, len(messages)*256)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
