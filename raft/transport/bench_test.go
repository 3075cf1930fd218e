package transport

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
)

// answerer answers each MsgApp with a MsgAppResp, and counts.
type answerer struct {
	t       *GRPC
	got     atomic.Int64  // MsgAppResp so far
	arrived chan struct{} // a token for each, unless quiet
	quiet   bool
	up      chan struct{}
}

func newAnswerer() *answerer {
	return &answerer{arrived: make(chan struct{}, 1<<16), up: make(chan struct{}, 100)}
}

func (a *answerer) Message(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgAppResp {
		a.got.Add(1)
		if !a.quiet {
			a.arrived <- struct{}{}
		}
		return
	}
	a.t.Send(api.MemberID(m.GetFrom()), []*raftpb.Message{{
		Type: raftpb.MsgAppResp.Enum(), From: m.To, To: m.From, Term: m.Term, Index: proto.Uint64(m.GetIndex() + uint64(len(m.Entries))),
	}})
}
func (a *answerer) Forwarded(api.MemberID, api.Term, []byte)               {}
func (a *answerer) Unreachable(api.MemberID)                               {}
func (a *answerer) PeerDown(api.MemberID)                                  {}
func (a *answerer) PeerUp(api.MemberID)                                    { a.up <- struct{}{} }
func (a *answerer) Refused(api.MemberID, error)                            {}
func (a *answerer) SnapshotSent(api.MemberID, bool)                        {}
func (a *answerer) SnapshotReceived(*raftpb.Message, SnapshotMeta, string) {}
func (a *answerer) Call(_ context.Context, _ api.MemberID, _ uint8, p []byte) ([]byte, error) {
	return p, nil
}

// benchPair starts two members that answer.
func benchPair(b *testing.B) (*member, *answerer) {
	one, two := newAnswerer(), newAnswerer()
	m1 := startMember(b, 1, memberOptions{handler: one})
	m2 := startMember(b, 2, memberOptions{handler: two})
	one.t, two.t = m1.GRPC, m2.GRPC
	peers := []Peer{m1.peer(), m2.peer()}
	m1.SetPeers(peers)
	m2.SetPeers(peers)
	<-one.up
	<-two.up
	return m1, one
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkRoundTrip is the latency of one append and its answer: two messages,
// two classes, both members in this process.
func BenchmarkRoundTrip(b *testing.B) {
	m, a := benchPair(b)
	data := make([]byte, 300)
	var took []time.Duration
	cpu := cpuTime()
	for b.Loop() {
		start := time.Now()
		m.Send(2, []*raftpb.Message{appendMessage(1, 2, 1, data)})
		<-a.arrived
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/2e3, "p50-µs/msg")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/2e3, "p99-µs/msg")
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(2*len(took)), "cpu-µs/msg")
}

// BenchmarkPaced sends appends at a rate, as Raft does under load: cpu-µs/msg is
// the cost of both members and counts the answers as messages.
func BenchmarkPaced(b *testing.B) {
	for _, rate := range []int{1000, 10000, 50000} {
		for _, size := range []int{300, 4096} {
			b.Run(fmt.Sprintf("%d-per-second/%d-bytes", rate, size), func(b *testing.B) {
				m, a := benchPair(b)
				a.quiet = true
				data := make([]byte, size)
				cpu, sent := cpuTime(), 0
				start := time.Now()
				for b.Loop() {
					// Not faster than the rate, in bursts as short as sleep allows.
					if due := start.Add(time.Duration(sent) * time.Second / time.Duration(rate)); time.Until(due) > 0 {
						time.Sleep(time.Until(due))
					}
					m.Send(2, []*raftpb.Message{appendMessage(1, 2, uint64(sent), data)})
					sent++
				}
				dropped := func() uint64 { return m.Stats()[0].Bulk.Dropped }
				for uint64(a.got.Load())+dropped() < uint64(sent) {
					time.Sleep(time.Millisecond)
				}
				b.ReportMetric(float64(dropped()), "dropped")
				b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(2*sent), "cpu-µs/msg")
				b.ReportMetric(float64(sent)/time.Since(start).Seconds(), "appends/s")
				s := m.Stats()[0].Bulk
				b.ReportMetric(float64(s.Sent)/float64(s.Frames), "msg/frame")
			})
		}
	}
}

// BenchmarkFlood keeps 256 appends in flight.
func BenchmarkFlood(b *testing.B) {
	m, a := benchPair(b)
	data := make([]byte, 300)
	cpu, sent := cpuTime(), 0
	for b.Loop() {
		if sent >= 256 {
			<-a.arrived
		}
		m.Send(2, []*raftpb.Message{appendMessage(1, 2, uint64(sent), data)})
		sent++
	}
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(2*sent), "cpu-µs/msg")
}

func BenchmarkCall(b *testing.B) {
	m, _ := benchPair(b)
	payload := make([]byte, 32)
	for b.Loop() {
		if _, err := m.GRPC.Call(b.Context(), 2, 1, payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCodec compares the hand-written codec with the generated one.
func BenchmarkCodec(b *testing.B) {
	m := appendMessage(1, 2, 1, make([]byte, 300), make([]byte, 300), make([]byte, 300))
	wire := appendMessageTo(nil, m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 4096)
		for b.Loop() {
			_ = messageSize(m)
			buf = appendMessageTo(buf[:0], m)
		}
	})
	b.Run("encode-generated", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 4096)
		for b.Loop() {
			buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeMessage(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode-generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(wire, &raftpb.Message{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSnapshot is the throughput of a snapshot into a synced file.
func BenchmarkSnapshot(b *testing.B) {
	a, c := startMember(b, 1, memberOptions{}), startMember(b, 2, memberOptions{files: b.TempDir()})
	connect(b, a, c)
	s := newTestSnapshot(256 << 20)
	b.SetBytes(256 << 20)
	n := 0
	for b.Loop() {
		n++
		a.SendSnapshot(2, envelope(1, 2), s)
		a.await(b, n, "snapshot to 2 sent true")
		c.recorder.mu.Lock()
		path := c.recorder.mu.path
		c.recorder.mu.Unlock()
		if err := c.fs.Remove(path); err != nil {
			b.Fatal(err)
		}
	}
}
