package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
)

const serviceName = "keelson.peer"

// Bounds of the peer port.
const (
	// openTimeout ends connections that do not get through TLS and the HTTP/2
	// preface, random bytes and silence among them.
	openTimeout = 5 * time.Second
	// concurrentStreams bounds what one connection has open, calls included.
	concurrentStreams = 1024
	// refusalLogEvery: the same failure is logged once in that time.
	refusalLogEvery = time.Minute
)

// streamNames are those of the classes' streams.
var streamNames = [classes]string{control: "Control", bulk: "Bulk"}

// outbound is what a client says of each stream.
var outbound = grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// serviceDesc lists the RPCs of the peer port. The first streams stand at the
// positions of their classes.
var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: serveCall}, {MethodName: "Announce", Handler: serveAnnounce}},
	Streams: []grpc.StreamDesc{
		{StreamName: streamNames[control], ClientStreams: true, ServerStreams: true, Handler: serveControl},
		{StreamName: streamNames[bulk], ClientStreams: true, ServerStreams: true, Handler: serveBulk},
		{StreamName: "Snapshot", ClientStreams: true, ServerStreams: true, Handler: serveSnapshot},
	},
}

const (
	callMethod     = "/" + serviceName + "/Call"
	snapshotMethod = "/" + serviceName + "/Snapshot"
)

func streamMethod(c class) string {
	return "/" + serviceName + "/" + streamNames[c]
}

func newServer(t *GRPC) *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(t.serverCredentials()),
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(t.maxMessage()),
		grpc.MaxSendMsgSize(t.maxMessage()),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(2*windowBytes),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
		grpc.ConnectionTimeout(openTimeout),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.MaxConcurrentStreams(concurrentStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveIdle, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveIdle / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	s.RegisterService(&serviceDesc, t)
	return s
}

// admit checks the handshake of an RPC.
func (t *GRPC) admit(ctx context.Context) (identity, Handler, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	id, err := parseIdentity(md)
	if err == nil {
		err = id.check(t.cfg.Cluster, t.cfg.ID)
	}
	if err == nil {
		err = t.refusal(id.from, markOf(md))
	}
	if err != nil {
		return id, nil, err
	}
	h := t.handler.Load()
	if h == nil || !t.knowsPeers() { // without them, one that has lost its directory looks like itself
		return id, nil, status.Error(codes.Unavailable, "the member is starting")
	}
	return id, *h, nil
}

// knowsPeers reports whether SetPeers was called.
func (t *GRPC) knowsPeers() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.incarnations != nil
}

// admitStream is admit for streams: it answers a good handshake with this
// member's identity, and a bad one with a typed refusal and one log line.
func (t *GRPC) admitStream(stream grpc.ServerStream) (identity, Handler, error) {
	id, h, err := t.admit(stream.Context())
	if err == nil {
		md, _ := metadata.FromIncomingContext(stream.Context())
		t.introduce(id.from, md.Get(keyURL))
		back := identity{cluster: t.cfg.Cluster, from: t.cfg.ID, to: id.from}
		return id, h, stream.SendHeader(t.metadata(back))
	}
	if _, is := status.FromError(err); is {
		return id, nil, err
	}
	if t.isNewRefusal(err.Error()) {
		t.cfg.Logger.Error("refused a peer", "from", id.from, "address", remoteAddress(stream.Context()), "error", err.Error())
	}
	trailer, err := refusal(err)
	stream.SetTrailer(trailer)
	return id, nil, err
}

// isNewRefusal keeps a peer that tries again and again from filling the log.
func (t *GRPC) isNewRefusal(text string) bool {
	now := t.cfg.Clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if text == t.mu.lastRefusal && now.Sub(t.mu.lastRefusalAt) < refusalLogEvery {
		return false
	}
	t.mu.lastRefusal, t.mu.lastRefusalAt = text, now
	return true
}

func serveControl(srv any, stream grpc.ServerStream) error {
	return srv.(*GRPC).serveClass(control, stream)
}

func serveBulk(srv any, stream grpc.ServerStream) error {
	return srv.(*GRPC).serveClass(bulk, stream)
}

type inboundKey struct {
	from  api.MemberID
	class class
}

// inboundStream is a stream on which a peer sends one class.
type inboundStream struct {
	mark  uint64        // of the peer's data directory
	done  chan struct{} // closed when its receiver has ended
	once  sync.Once
	ended chan struct{} // closed to end it
	cause error
}

// end makes the stream's handler return with the cause.
func (in *inboundStream) end(cause error) {
	in.once.Do(func() {
		in.cause = cause
		close(in.ended)
	})
}

var errReplaced = errors.New("a newer stream took its place")

// serveClass receives one class from one peer. gRPC lets a handler end its stream
// only by returning, so the receiver has a goroutine of its own.
func (t *GRPC) serveClass(c class, stream grpc.ServerStream) error {
	id, h, err := t.admitStream(stream)
	if err != nil {
		return err
	}
	key := inboundKey{id.from, c}
	md, _ := metadata.FromIncomingContext(stream.Context())
	in := &inboundStream{mark: markOf(md), done: make(chan struct{}), ended: make(chan struct{})}
	if err := t.replaceInbound(key, in); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer t.forgetInbound(key, in)
	failed := make(chan error, 1)
	t.work.Add(1)
	go func() {
		defer t.work.Done()
		defer close(in.done)
		failed <- t.receive(id, h, stream)
	}()
	select {
	case err := <-failed:
		if l := t.link(id.from); l != nil {
			l.received.failed.Add(1)
		}
		if errors.Is(err, errMalformed) {
			t.cfg.Logger.Error("closed a stream with bytes that make no sense", "from", id.from, "class", c.String(), "error", err.Error())
			return status.Error(codes.InvalidArgument, err.Error())
		}
		return err
	case <-in.ended:
		return status.Error(codes.Aborted, in.cause.Error())
	case <-t.ctx.Done():
		return status.Error(codes.Unavailable, ErrClosed.Error())
	}
}

// replaceInbound makes in the stream of its peer and class. An older one may be
// half open; it must have handed over its last message before the new one starts,
// or the order within the class would break.
func (t *GRPC) replaceInbound(key inboundKey, in *inboundStream) error {
	t.mu.Lock()
	if err := t.refusalLocked(key.from, in.mark); err != nil { // since the handshake
		t.mu.Unlock()
		close(in.done)
		return err
	}
	old := t.mu.inbound[key]
	t.mu.inbound[key] = in
	l, closed := t.mu.links[key.from], t.mu.closed
	t.mu.Unlock()
	if closed {
		close(in.done)
		return ErrClosed
	}
	if old != nil {
		old.end(errReplaced)
		select {
		case <-old.done:
		case <-t.ctx.Done():
			close(in.done)
			return ErrClosed
		}
	}
	if l != nil {
		l.peerCame()
	}
	return nil
}

func (t *GRPC) forgetInbound(key inboundKey, in *inboundStream) {
	t.mu.Lock()
	current := t.mu.inbound[key] == in
	if current {
		delete(t.mu.inbound, key)
	}
	l := t.mu.links[key.from]
	t.mu.Unlock()
	if current && l != nil {
		l.peerLeft()
	}
}

// receive hands what comes to the handler until the stream ends.
func (t *GRPC) receive(id identity, h Handler, stream grpc.ServerStream) error {
	var in mem.BufferSlice
	var uncounted receiveCounters // of a peer that SetPeers has not named yet
	for {
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		// One copy to the exact size: entries alias it for as long as Raft keeps
		// them, and gRPC's pooled buffers are much larger than small frames.
		frame := in.Materialize()
		in.Free()
		count := &uncounted
		if l := t.link(id.from); l != nil {
			count = &l.received
		}
		count.frames.Add(1)
		count.bytes.Add(uint64(len(frame)))
		records, err := unseal(frame)
		if err != nil {
			return err
		}
		err = decodeFrame(records, func(r record) error {
			count.records.Add(1)
			if r.msg == nil {
				h.Forwarded(id.from, r.term, r.batch)
				return nil
			}
			if err := checkMessage(r.msg, id); err != nil {
				return err
			}
			h.Message(r.msg)
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// checkMessage refuses what would make Raft believe another sender, or panic.
func checkMessage(m *raftpb.Message, id identity) error {
	if m.GetFrom() != uint64(id.from) || m.GetTo() != uint64(id.to) {
		return fmt.Errorf("%w: a message from %x to %x on a stream from %s to %s", errMalformed, m.GetFrom(), m.GetTo(), id.from, id.to)
	}
	if m.GetType() != raftpb.MsgApp {
		return nil // a read index carries its context as an entry without a place in the log
	}
	next, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		next++
		if e.GetIndex() != next || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("%w: entry %d of term %d where %d of terms %d to %d was due", errMalformed, e.GetIndex(), e.GetTerm(), next, term, m.GetTerm())
		}
		term = e.GetTerm()
	}
	return nil
}
