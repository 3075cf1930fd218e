package sim

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/watchcheck"
	"github.com/keelson-io/keelson/server"
)

// watcher follows some keys, on one member after the other.
type watcher struct {
	s      *Sim
	n      int
	want   watchcheck.Request
	stream *stream // nil: none is open
	rec    *history.Watch
	next   int64 // revision to go on from; 0: from now on
}

// stream is one Watch RPC on a member.
type stream struct {
	w       *watcher
	m       *member
	watches *server.SteppedWatches
	arrives time.Duration // of the newest answer on its way; answers keep their order
	reads   time.Duration // the client does not read before
	ended   bool
}

func newWatcher(s *Sim, n int) *watcher {
	r := s.chance.client
	w := &watcher{s: s, n: n, want: watchcheck.Request{Key: []byte("key/"), End: []byte("key0")}}
	if r.IntN(3) == 0 {
		w.want.Key, w.want.End = []byte("key/001"), nil
	}
	w.want.PrevKV, w.want.Fragment = r.IntN(2) == 0, r.IntN(2) == 0
	if r.IntN(4) == 0 {
		w.want.NoPut = r.IntN(2) == 0
		w.want.NoDelete = !w.want.NoPut
	}
	return w
}

func (w *watcher) pause() time.Duration {
	return time.Duration(w.s.chance.client.Int64N(int64(500 * time.Millisecond)))
}

// open opens a stream on some member.
func (w *watcher) open() {
	s := w.s
	m := s.anybody()
	if m.node == nil || m.repairing || m.cutOff > 0 {
		s.after(w.pause(), w.open)
		return
	}
	life := m.life
	s.after(w.s.reach(), func() {
		if m.life != life || m.node == nil || s.now < m.paused {
			s.after(w.pause(), w.open)
			return
		}
		w.begin(m)
	})
}

// begin makes the watch. Most go on where the last one ended; some begin anew, in
// the past or in the future.
func (w *watcher) begin(m *member) {
	r := w.s.chance.client
	w.want.Start = w.next
	if w.next == 0 || !w.s.calm && r.IntN(8) == 0 {
		at := int64(m.node.Store().Revision())
		w.want.Start = []int64{0, 1, max(1, at-r.Int64N(20)), at + r.Int64N(10)}[r.IntN(4)]
	}
	w.stream = &stream{w: w, m: m, watches: m.node.Watches()}
	w.rec = &history.Watch{Client: w.n, Member: uint64(m.id), Opened: w.s.now, Watch: watchcheck.Watch{Request: w.want}}
	w.s.hist.Watches = append(w.s.hist.Watches, w.rec)
	w.s.stats.Watches++
	_, err := w.stream.watches.Watch(mvcc.WatchRequest{
		Key: w.want.Key, End: w.want.End, Start: api.Revision(w.want.Start), PrevKV: w.want.PrevKV,
		NoPut: w.want.NoPut, NoDelete: w.want.NoDelete, Fragment: w.want.Fragment, Progress: r.IntN(2) == 0,
	})
	if err != nil {
		w.s.fail("O3", "watch refused: %v", err)
	}
	m.streams = append(m.streams, w.stream)
	m.pollSoon()
}

// pollSoon plans a round of the senders.
func (m *member) pollSoon() {
	if m.polling || len(m.streams) == 0 {
		return
	}
	m.polling = true
	m.after(time.Duration(m.s.chance.sched.Int64N(int64(300*time.Microsecond))), m.poll)
}

// sends bounds what one sender puts on its way in a round.
const sends = 8

func (m *member) poll() {
	m.polling = false
	for _, st := range m.streams {
		for range sends {
			if st.ended || m.s.now < st.reads {
				break
			}
			answers, err := st.watches.Poll()
			if err != nil && m.rotten {
				m.after(0, m.breakStreams) // damage, and said so
				return
			}
			if err != nil {
				m.s.fail("O3", "watch on %s: %v", m.name, err)
			}
			if len(answers) == 0 {
				break
			}
			for _, a := range answers {
				st.send(a)
			}
		}
	}
}

func (st *stream) send(a *pb.WatchResponse) {
	s := st.w.s
	st.arrives = max(st.arrives, s.now+s.reach())
	s.at(st.arrives, func() {
		if !st.ended {
			st.w.receive(a)
		}
	})
}

// receive writes an answer down.
func (w *watcher) receive(a *pb.WatchResponse) {
	s := w.s
	w.rec.Responses = append(w.rec.Responses, watchcheck.Response{
		Revision: a.Header.Revision, Created: a.Created, Canceled: a.Canceled, Compact: a.CompactRevision, Fragment: a.Fragment,
		Progress: !a.Created && !a.Canceled && len(a.Events) == 0, Events: a.Events,
	})
	s.stats.WatchEvents += len(a.Events)
	s.mix(uint64(w.n), uint64(a.Header.Revision), uint64(len(a.Events)))
	switch {
	case a.Created && w.want.Start == 0:
		w.next = a.Header.Revision + 1
	case a.Created:
		w.next = w.want.Start
	case a.Canceled:
		w.next = a.CompactRevision
		w.end()
		return
	case len(a.Events) > 0 && !a.Fragment:
		w.next = a.Events[len(a.Events)-1].Kv.ModRevision + 1
	}
	w.disturb()
}

// disturb does what clients do now and then.
func (w *watcher) disturb() {
	s, r := w.s, w.s.chance.client
	switch n := r.IntN(300); {
	case s.calm:
	case n == 0:
		w.end()
	case n < 4:
		w.stream.reads = s.now + time.Duration(r.Int64N(int64(2*time.Second)))
	case n < 10:
		w.stream.watches.RequestProgress()
	case n < 16:
		w.stream.watches.Tick()
	}
}

// end closes the stream from the client's side and opens another.
func (w *watcher) end() {
	if st := w.stream; st != nil && !st.ended {
		st.ended = true
		st.watches.Close()
		st.m.forget(st)
		w.stream = nil
		w.s.after(w.pause(), w.open)
	}
}

// broken ends a stream whose member or connection is gone.
func (st *stream) broken() {
	if !st.ended {
		st.ended = true
		st.w.stream = nil
		st.w.s.after(st.w.pause(), st.w.open)
	}
}

func (m *member) forget(st *stream) {
	var left []*stream
	for _, o := range m.streams {
		if o != st {
			left = append(left, o)
		}
	}
	m.streams = left
}

// breakStreams ends the streams of a member that clients have lost.
func (m *member) breakStreams() {
	for _, st := range m.streams {
		st.watches.Close()
		st.broken()
	}
	m.streams = nil
}
