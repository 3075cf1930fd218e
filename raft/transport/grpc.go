package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// GRPCConfig says who this member is and what the transport may use.
type GRPCConfig struct {
	ID      api.MemberID
	Cluster api.ClusterID
	// Incarnation marks this member's data directory; see Peer.
	Incarnation uint64
	// URLs are where this member is reached, for those that do not know it yet.
	URLs []string
	// Announce answers who belongs to the cluster, to anybody who may connect;
	// nil means nobody is told. See Ask.
	Announce func(ctx context.Context) ([]byte, error)
	Clock    clock.Clock
	Logger   *slog.Logger
	// Dial opens a connection to a peer URL (http, https or unix). It must say
	// ECONNREFUSED when nobody listens there. Nil means DialURL.
	Dial func(ctx context.Context, url string) (net.Conn, error)
	// TLS is used for https URLs, and for all listeners if it is set. It must
	// hold what both sides need: certificates, root and client CAs.
	TLS *tls.Config
	// FS and SnapDir are where received snapshots go. Files that a crash left
	// there are removed when the transport is made.
	FS      vfs.FS
	SnapDir string
	// Transfer is called when a snapshot to (sends) or from a peer begins, and
	// what it returns when it has ended; nil: nobody counts.
	Transfer func(peer api.MemberID, sends bool) (done func(error))
	// Writes is a number that changes with each write of a client, in any member; nil:
	// nothing is known. While it stays as it is, a snapshot is sent in a hurry.
	Writes func() uint64
	// MaxFrame bounds a message, a forwarded batch, a call and its answer, in
	// bytes. 0 means 64 MiB.
	MaxFrame int
}

const (
	defaultMaxFrame = 64 << 20
	minMaxFrame     = 64 << 10
)

// GRPC is the transport between processes. See the package's documentation for
// its streams and goroutines.
type GRPC struct {
	cfg    GRPCConfig
	snaps  *snapshotDir
	server *grpc.Server
	events *eventQueue
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	taking atomic.Bool // a snapshot is being received

	handler atomic.Pointer[Handler]

	mu struct {
		sync.Mutex
		closed  bool
		links   map[api.MemberID]*link
		inbound map[inboundKey]*inboundStream
		removed map[api.MemberID]bool // refused for ever; ids are never used again
		// strangers have links although SetPeers has not named them; see introduce.
		strangers map[api.MemberID]bool
		// incarnations are the known ones of the peers.
		incarnations map[api.MemberID]uint64

		lastRefusal   string
		lastRefusalAt time.Time
	}
}

var _ Transport = (*GRPC)(nil)

// NewGRPC returns a transport without peers. It listens where Serve is told to.
func NewGRPC(cfg GRPCConfig) (*GRPC, error) {
	if cfg.MaxFrame == 0 {
		cfg.MaxFrame = defaultMaxFrame
	}
	if cfg.Dial == nil {
		cfg.Dial = DialURL
	}
	switch {
	case cfg.ID == 0:
		return nil, errors.New("transport: the member's id is 0")
	case cfg.Clock == nil || cfg.Logger == nil || cfg.FS == nil || cfg.SnapDir == "":
		return nil, errors.New("transport: the configuration lacks a clock, a logger or a place for snapshots")
	case cfg.MaxFrame < minMaxFrame || cfg.MaxFrame > 1<<30:
		return nil, fmt.Errorf("transport: a frame limit of %d bytes", cfg.MaxFrame)
	}
	if cfg.Transfer == nil {
		cfg.Transfer = func(api.MemberID, bool) func(error) { return func(error) {} }
	}
	snaps, err := openSnapshotDir(cfg.FS, cfg.SnapDir)
	if err != nil {
		return nil, fmt.Errorf("transport: snapshot directory: %w", err)
	}
	t := &GRPC{cfg: cfg, snaps: snaps, events: newEventQueue()}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.mu.links = map[api.MemberID]*link{}
	t.mu.inbound = map[inboundKey]*inboundStream{}
	t.mu.removed, t.mu.strangers = map[api.MemberID]bool{}, map[api.MemberID]bool{}
	t.server = newServer(t)
	return t, nil
}

// Serve accepts peers on l until Close, which it does not count as an error. It
// may run on several listeners at once, before or after Start.
func (t *GRPC) Serve(l net.Listener) error {
	err := t.server.Serve(l)
	if errors.Is(err, grpc.ErrServerStopped) || t.ctx.Err() != nil {
		return nil
	}
	return err
}

// Start implements Transport.
func (t *GRPC) Start(h Handler) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return ErrClosed
	}
	if !t.handler.CompareAndSwap(nil, &h) {
		return errors.New("transport: started twice")
	}
	t.work.Add(1)
	go func() {
		defer t.work.Done()
		t.events.run(t.ctx, h)
	}()
	for _, l := range t.mu.links {
		l.begin()
	}
	return nil
}

// SetPeers implements Transport. A peer whose URLs changed is dialled anew.
func (t *GRPC) SetPeers(peers []Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return
	}
	keep := map[api.MemberID]bool{}
	t.mu.incarnations = map[api.MemberID]uint64{}
	for _, p := range peers {
		if p.ID == t.cfg.ID {
			continue
		}
		t.mu.incarnations[p.ID] = p.Incarnation
		keep[p.ID] = true
		delete(t.mu.strangers, p.ID)
		l := t.mu.links[p.ID]
		if l != nil && slices.Equal(l.urls, p.URLs) {
			continue
		}
		if l != nil {
			l.end()
		}
		l = newLink(t, p)
		t.mu.links[p.ID] = l
		if t.handler.Load() != nil {
			l.begin()
		}
	}
	for id, l := range t.mu.links {
		if !keep[id] && !t.mu.strangers[id] {
			l.end()
			delete(t.mu.links, id)
		}
	}
	t.endRefusedLocked()
}

// Refuse implements Transport.
func (t *GRPC) Refuse(ids ...api.MemberID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.mu.removed[id] = true
		delete(t.mu.strangers, id)
		if l := t.mu.links[id]; l != nil {
			l.end()
			delete(t.mu.links, id)
		}
	}
	t.endRefusedLocked()
}

// endRefusedLocked ends the streams of members that are not heard any more.
func (t *GRPC) endRefusedLocked() {
	for key, in := range t.mu.inbound {
		if err := t.refusalLocked(key.from, in.mark); err != nil {
			in.end(err)
		}
	}
}

// ActiveSince implements Transport.
func (t *GRPC) ActiveSince(id api.MemberID) time.Time {
	if l := t.link(id); l != nil {
		if up := l.upSince.Load(); up != nil {
			return *up
		}
	}
	return time.Time{}
}

func (t *GRPC) link(id api.MemberID) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.links[id]
}

// Send implements Transport. The messages are encoded later, by the peer's
// sender: they must not change any more.
func (t *GRPC) Send(to api.MemberID, msgs []*raftpb.Message) {
	l := t.link(to)
	if l == nil {
		t.events.unreachable(to)
		return
	}
	var few [classes][4]record // most calls hold a message or two: no allocation
	split := [classes][]record{few[0][:0], few[1][:0]}
	for _, m := range msgs {
		r := messageRecord(m)
		if r.wireSize() > t.cfg.MaxFrame || len(m.Entries) > maxEntries {
			t.cfg.Logger.Error("a message is larger than the peer transport takes; it was dropped",
				"peer", to, "type", m.GetType(), "bytes", r.body, "entries", len(m.Entries), "limit", t.cfg.MaxFrame)
			t.events.unreachable(to)
			continue
		}
		c := classOf(m)
		split[c] = append(split[c], r)
	}
	for c, records := range split {
		if len(records) > 0 && l.queues[c].put(records...) > 0 {
			t.events.unreachable(to)
		}
	}
}

// Forward implements Transport. It takes ownership of batch.
func (t *GRPC) Forward(to api.MemberID, term api.Term, batch []byte) bool {
	l := t.link(to)
	r := forwardRecord(term, batch)
	if l == nil || r.wireSize() > t.cfg.MaxFrame {
		return false
	}
	return l.queues[bulk].put(r) == 0
}

// Close implements Transport. Handler methods under way are waited for.
func (t *GRPC) Close() error {
	t.mu.Lock()
	t.mu.closed = true
	for _, l := range t.mu.links {
		l.end()
	}
	t.mu.Unlock()
	t.cancel()
	t.server.Stop()
	t.work.Wait()
	return nil
}

// PeerStats is what the transport knows about one peer.
type PeerStats struct {
	ID       api.MemberID
	UpSince  time.Time // zero while there is no connection
	Broken   uint64    // connections that broke after they had worked
	Control  ClassStats
	Bulk     ClassStats
	Received ReceivedStats
}

// ClassStats counts the records (messages and forwards) to one peer in one class.
//
// Offered == Sent + Dropped + waiting, at any time when no frame is being sent.
type ClassStats struct {
	Offered, Sent, Dropped uint64
	Frames, Bytes          uint64
}

// ReceivedStats counts what came from one peer.
type ReceivedStats struct {
	Records, Frames, Bytes uint64
	Failed                 uint64 // streams that broke or held bytes that make no sense
}

// Stats returns the counters of all peers, in the order of their ids.
func (t *GRPC) Stats() []PeerStats {
	t.mu.Lock()
	links := maps.Clone(t.mu.links)
	t.mu.Unlock()
	var all []PeerStats
	for _, id := range slices.Sorted(maps.Keys(links)) {
		all = append(all, links[id].stats())
	}
	return all
}
