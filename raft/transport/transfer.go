package transport

import (
	"context"
	"errors"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// partTimeout ends a snapshot that makes no progress, on either side. The last
// part takes the longest: the receiver syncs what it has.
const partTimeout = 60 * time.Second

// maxRest bounds the rest after a portion of a snapshot.
const maxRest = 100 * time.Millisecond

// quietTime is for how long nobody must have written for a snapshot to be sent in a hurry.
const quietTime = 250 * time.Millisecond

// hurry sees whether anybody writes while a snapshot is sent.
type hurry struct {
	clock  clock.Clock
	writes func() uint64 // nil: nothing is known
	seen   uint64
	since  time.Time // of seen
}

// size is that of the next chunk: it tells the receiver, too.
func (h *hurry) size() int {
	if h.writes == nil {
		return chunkBytes
	}
	now := h.clock.Now()
	if n := h.writes(); n != h.seen || h.since.IsZero() {
		h.seen, h.since = n, now
	}
	if now.Sub(h.since) < quietTime {
		return chunkBytes
	}
	return hurriedBytes
}

// pacer lets the receiver of a snapshot rest after each portion, which it syncs,
// for as long as that took. So processors, network and disks stay with those who
// wait for them: HTTP/2 holds the sender back, too. The transfer takes twice as long,
// unless nobody writes: then it rests no more.
type pacer struct {
	clock   clock.Clock
	last    time.Time // end of the last rest
	portion int       // bytes since
}

// took rests when a portion is full, or until ctx ends.
func (p *pacer) took(ctx context.Context, n int, hurried bool) {
	if p.portion += n; p.portion < syncEvery {
		return
	}
	if hurried {
		p.last, p.portion = p.clock.Now(), 0
		return
	}
	timer := p.clock.NewTimer(min(p.clock.Now().Sub(p.last), maxRest))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done(): // the stream's: nothing more comes
	}
	p.last, p.portion = p.clock.Now(), 0
}

// SendSnapshot implements Transport. The snapshot has a connection of its own, so
// that the other classes never share a socket with gigabytes.
func (t *GRPC) SendSnapshot(to api.MemberID, msg *raftpb.Message, s Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	handler := t.handler.Load()
	if t.mu.closed || handler == nil {
		s.Release()
		return
	}
	l := t.mu.links[to]
	msg = proto.Clone(msg).(*raftpb.Message) // Raft may look at its own meanwhile
	t.work.Add(1)
	go func() {
		defer t.work.Done()
		done := t.cfg.Transfer(to, true)
		err := ErrUnknownPeer
		if l != nil {
			err = l.sendSnapshot(msg, s)
		}
		done(err)
		log := t.cfg.Logger.With("peer", to, "index", s.Meta().Index, "term", s.Meta().Term, "bytes", s.Size())
		s.Release()
		if err != nil {
			log.Warn("could not send a snapshot", "error", err.Error())
		} else {
			log.Info("sent a snapshot")
		}
		(*handler).SnapshotSent(to, err == nil)
	}()
}

func (l *link) sendSnapshot(msg *raftpb.Message, s Snapshot) error {
	m, err := newManifest(l.identity(), msg, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	dialCtx, stop := withTimeout(ctx, l.t.cfg.Clock, dialTimeout)
	cc, _, err := l.connect(dialCtx)
	stop()
	if err != nil {
		return err
	}
	defer cc.Close()
	progress := l.t.cfg.Clock.AfterFunc(partTimeout, cancel)
	defer progress.Stop()
	stream, err := cc.NewStream(l.outgoing(ctx), &outbound, snapshotMethod)
	if err != nil {
		return err
	}
	if err := l.accepted(stream); err != nil {
		return err
	}
	pace := hurry{clock: l.t.cfg.Clock, writes: l.t.cfg.Writes}
	err = writeSnapshot(m, s, pace.size, func(b mem.Buffer) error {
		progress.Reset(partTimeout)
		return stream.SendMsg(&mem.BufferSlice{b})
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// io.EOF says that the receiver has ended the stream: its status says why.
	// Otherwise it answers with one empty message when the file is safe.
	return l.awaitTaken(stream)
}

func (l *link) awaitTaken(stream grpc.ClientStream) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var answer mem.BufferSlice
	if err := stream.RecvMsg(&answer); err != nil {
		return refused(err, stream.Trailer())
	}
	answer.Free()
	return nil
}

// serveSnapshot receives one snapshot. This member takes one at a time: two would
// need the space of two, and one of them would be thrown away anyhow.
func serveSnapshot(srv any, stream grpc.ServerStream) error {
	t := srv.(*GRPC)
	id, h, err := t.admitStream(stream)
	if err != nil {
		return err
	}
	if !t.taking.CompareAndSwap(false, true) {
		return status.Error(codes.ResourceExhausted, "another snapshot is being received")
	}
	r := t.snaps.receive(id)
	t.work.Add(1)
	failed := make(chan error, 1)
	progress := make(chan struct{}, 1)
	go func() {
		defer t.work.Done()
		defer t.taking.Store(false)
		failed <- t.receiveSnapshot(r, h, stream, progress)
	}()
	err = t.superviseSnapshot(failed, progress)
	if err != nil {
		return status.Error(codes.Aborted, err.Error())
	}
	return nil
}

// superviseSnapshot waits for the receiver, and gives up when nothing comes. The
// receiver then ends with its stream.
func (t *GRPC) superviseSnapshot(failed <-chan error, progress <-chan struct{}) error {
	timer := t.cfg.Clock.NewTimer(partTimeout)
	defer timer.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-progress:
			timer.Stop()
			timer = t.cfg.Clock.NewTimer(partTimeout)
		case <-timer.C():
			return context.DeadlineExceeded
		case <-t.ctx.Done():
			return ErrClosed
		}
	}
}

// receiveSnapshot puts the file together and hands it over. Whatever fails, no
// part of the file stays.
func (t *GRPC) receiveSnapshot(r *receiver, h Handler, stream grpc.ServerStream, progress chan<- struct{}) error {
	done := t.cfg.Transfer(r.id.from, false)
	err := t.takeParts(r, stream, progress)
	done(err)
	index, term, size := r.describe()
	log := t.cfg.Logger.With("from", r.id.from, "index", index, "term", term, "bytes", size)
	if err != nil {
		err = errors.Join(err, r.abort())
		log.Warn("could not receive a snapshot", "error", err.Error())
		return err
	}
	log.Info("received a snapshot")
	h.SnapshotReceived(r.msg, r.meta, r.path)
	return stream.SendMsg(&mem.BufferSlice{})
}

func (t *GRPC) takeParts(r *receiver, stream grpc.ServerStream, progress chan<- struct{}) error {
	var in mem.BufferSlice
	pace := pacer{clock: t.cfg.Clock, last: t.cfg.Clock.Now()}
	for {
		if err := stream.RecvMsg(&in); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		b := in.MaterializeToBuffer(mem.DefaultBufferPool())
		in.Free()
		done, err := r.take(b.ReadOnlyData())
		n := b.Len()
		b.Free()
		if done || err != nil {
			return err
		}
		select {
		case progress <- struct{}{}:
		default: // the supervisor has not seen the last one yet
		}
		pace.took(stream.Context(), n, r.hurried)
	}
}
