package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/keelson-io/keelson/api"
)

const (
	// backoffMin and backoffMax bound the wait between refused dials. A peer that
	// comes back dials us as well, which ends the wait at once.
	backoffMin = 10 * time.Millisecond
	backoffMax = 500 * time.Millisecond
	// backoffRefused follows a handshake that the peer refused: nothing but an
	// operator changes that.
	backoffRefused = 5 * time.Second
	// steadySession is how long a session lasts that starts the backoff anew.
	steadySession = time.Second
)

// link is the way to one peer: two connections, one for each class, which this
// member dials and only this member sends on. The peer dials its own.
//
// The supervisor (run) owns the connections; per session, each class has a sender
// and a watcher, which ends when the stream breaks.
type link struct {
	t      *GRPC
	peer   api.MemberID
	urls   []string
	queues [classes]*queue
	kicked chan struct{} // ends a wait between dials
	ctx    context.Context
	end    context.CancelFunc

	client   atomic.Pointer[grpc.ClientConn] // of the bulk class, for calls; nil without a session
	upSince  atomic.Pointer[time.Time]
	sent     [classes]sendCounters
	broken   atomic.Uint64
	received receiveCounters
	// isDown: PeerDown was told and nothing has worked since.
	isDown atomic.Bool

	attempts atomic.Uint32 // rotates the URLs, so that a silent one spoils only some tries
	logged   struct {      // owned by the supervisor: its last line about tries that failed
		reason string
		at     time.Time
	}
}

type sendCounters struct{ records, frames, bytes, lost atomic.Uint64 }

type receiveCounters struct{ records, frames, bytes, failed atomic.Uint64 }

func newLink(t *GRPC, p Peer) *link {
	l := &link{t: t, peer: p.ID, urls: append([]string(nil), p.URLs...), kicked: make(chan struct{}, 1)}
	l.queues[control], l.queues[bulk] = newQueue(), newQueue()
	l.ctx, l.end = context.WithCancel(t.ctx)
	return l
}

func (l *link) identity() identity {
	return identity{cluster: l.t.cfg.Cluster, from: l.t.cfg.ID, to: l.peer}
}

// begin starts the supervisor. The transport's lock is held.
func (l *link) begin() {
	l.t.work.Add(1)
	go func() {
		defer l.t.work.Done()
		l.run()
	}()
}

// kick makes the supervisor dial now if it waits.
func (l *link) kick() {
	select {
	case l.kicked <- struct{}{}:
	default: // a kick is waiting already
	}
}

// peerCame notes a stream from the peer: it lives.
func (l *link) peerCame() {
	l.isDown.Store(false)
	l.kick()
}

// peerLeft notes the end of a stream from the peer: look whether it lives.
func (l *link) peerLeft() { l.kick() }

// run keeps a session with the peer until the link ends.
func (l *link) run() {
	wait := time.Duration(0)
	for l.ctx.Err() == nil {
		started := l.t.cfg.Clock.Now()
		up, refused, err := l.session()
		if l.ctx.Err() != nil {
			return
		}
		l.logEnd(up, refused, err)
		if isRefusal(err) {
			l.t.events.refused(l.peer, err)
		}
		if refused && !l.isDown.Swap(true) {
			l.t.events.down(l.peer)
		}
		switch {
		case up && l.t.cfg.Clock.Now().Sub(started) >= steadySession:
			wait = 0 // a broken stream is looked into at once
		case isRefusal(err), errors.Is(err, errStranger):
			wait = backoffRefused
		default:
			wait = min(max(2*wait, backoffMin), backoffMax)
		}
		l.pause(wait)
	}
}

// pause waits before the next dial; it is over when the peer shows up.
func (l *link) pause(wait time.Duration) {
	if wait == 0 {
		return
	}
	timer := l.t.cfg.Clock.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-l.kicked:
	case <-l.ctx.Done():
	}
}

// session connects both classes, reports the peer as up, and returns when the
// first of the two streams has broken. up says that it got that far, refused
// that nobody listens at any of the peer's URLs.
func (l *link) session() (up, refused bool, err error) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	var channels [classes]channel
	defer func() {
		for _, ch := range channels {
			ch.close()
		}
	}()
	for c := range classes {
		if channels[c], refused, err = l.open(ctx, c); err != nil {
			return false, refused, err
		}
	}
	l.client.Store(channels[bulk].client)
	defer l.client.Store(nil)
	now := l.t.cfg.Clock.Now()
	l.upSince.Store(&now)
	defer l.upSince.Store(nil)
	l.isDown.Store(false)
	for _, q := range l.queues {
		q.start() // before PeerUp: what is sent because of it must not be dropped
	}
	l.t.cfg.Logger.Info("connected to peer", "peer", l.peer)
	l.t.events.up(l.peer)
	err = l.exchange(ctx, cancel, channels)
	l.broken.Add(1)
	// What was on its way may be lost: Raft must look where the peer stands.
	l.t.events.unreachable(l.peer)
	return true, false, err
}

// channel is one class's connection in a session; the zero value is none.
type channel struct {
	client *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelFunc
}

func (ch channel) close() {
	if ch.cancel != nil {
		ch.cancel()
	}
	if ch.client != nil {
		ch.client.Close()
	}
}

// open dials one class and waits until the peer has accepted the handshake.
func (l *link) open(ctx context.Context, c class) (ch channel, refused bool, err error) {
	ctx, ch.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			ch.close()
			ch = channel{}
		}
	}()
	// The timer bounds the attempt; once stopped, the stream may live for ever.
	timer := l.t.cfg.Clock.AfterFunc(dialTimeout, ch.cancel)
	defer timer.Stop()
	if ch.client, refused, err = l.connect(ctx); err != nil {
		return ch, refused, err
	}
	ch.stream, err = ch.client.NewStream(l.outgoing(ctx), &outbound, streamMethod(c))
	if err != nil {
		return ch, false, err
	}
	if err = l.accepted(ch.stream); err != nil {
		return ch, false, err
	}
	if !timer.Stop() {
		return ch, false, context.DeadlineExceeded
	}
	return ch, false, nil
}

// accepted waits for the peer's answer to the handshake: its identity.
func (l *link) accepted(stream grpc.ClientStream) error {
	header, err := stream.Header()
	if err == nil && len(header.Get(keyProtocol)) == 0 {
		err = stream.RecvMsg(new(mem.BufferSlice)) // refused: the status says why
		if err == nil {
			err = fmt.Errorf("%w: an answer before the handshake", errMalformed)
		}
	}
	if err != nil {
		return refused(err, stream.Trailer())
	}
	id, err := parseIdentity(header)
	if err != nil {
		return err
	}
	if id.from != l.peer {
		return fmt.Errorf("%w: %s was meant, %s answered", ErrWrongMember, l.peer, id.from)
	}
	if err := id.check(l.t.cfg.Cluster, l.t.cfg.ID); err != nil {
		return err
	}
	if l.t.refusal(l.peer, markOf(header)) != nil {
		return errStranger // the peer's loss, not ours
	}
	return nil
}

// exchange runs the senders and watchers until the first of them ends.
func (l *link) exchange(ctx context.Context, cancel context.CancelFunc, channels [classes]channel) error {
	var work sync.WaitGroup
	ended := make(chan error, 2*classes)
	for c, ch := range channels {
		q, stream := l.queues[c], ch.stream
		work.Add(2)
		go func() {
			defer work.Done()
			ended <- l.send(ctx, q, &l.sent[c], stream)
		}()
		go func() { // the watcher: the peer sends nothing, so this is the break
			defer work.Done()
			err := stream.RecvMsg(new(mem.BufferSlice))
			if err == nil {
				err = fmt.Errorf("%w: a peer sent on a stream of ours", errMalformed)
			}
			ended <- refused(err, stream.Trailer())
		}()
	}
	err := <-ended
	cancel()
	work.Wait()
	for _, q := range l.queues {
		q.stop()
	}
	return err
}

// send is a class's sender: it drains the queue into frames until the stream
// breaks. One frame holds all that waited, up to frameTarget.
func (l *link) send(ctx context.Context, q *queue, count *sendCounters, stream grpc.ClientStream) error {
	var records []record
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.wake:
		}
		records = q.take(records)
		for rest := records; len(rest) > 0; {
			n, size := nextFrame(rest, min(frameTarget, l.t.cfg.MaxFrame))
			// gRPC reads this slice later, so each frame needs a new one.
			frame := mem.BufferSlice{encodeFrame(rest[:n], size)}
			if err := stream.SendMsg(&frame); err != nil {
				count.lost.Add(uint64(len(rest)))
				return err
			}
			count.records.Add(uint64(n))
			count.frames.Add(1)
			count.bytes.Add(uint64(size))
			rest = rest[n:]
		}
		clear(records) // entries must not live on in the spare slice
		q.sent()
	}
}

// nextFrame says how many of the records, at least one, make the next frame.
func nextFrame(records []record, target int) (n, size int) {
	size = sealSize
	for n < len(records) && n < frameRecords {
		more := records[n].wireSize()
		if n > 0 && size+more > target {
			break
		}
		n, size = n+1, size+more
	}
	return n, size
}

func encodeFrame(records []record, size int) mem.Buffer {
	pool := mem.DefaultBufferPool()
	b := pool.Get(size)
	out := (*b)[:sealSize]
	for i := range records {
		out = appendRecord(out, &records[i])
	}
	if len(out) != size {
		panic(fmt.Sprintf("transport: a frame of %d bytes was sized %d", len(out), size))
	}
	copy(out, sealOf(out[sealSize:]))
	return mem.NewBuffer(b, pool)
}

func isRefusal(err error) bool {
	for _, sentinel := range refusals {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// logEnd writes a line for each new reason why there is no connection, and then
// one a minute. The text is no measure of news: it may hold a passing port number.
func (l *link) logEnd(up, refused bool, err error) {
	log := l.t.cfg.Logger.With("peer", l.peer, "urls", l.urls, "error", err.Error())
	if up {
		l.logged.reason = ""
		log.Warn("lost the connection to a peer")
		return
	}
	reason := "failed"
	switch {
	case isRefusal(err):
		reason = "refused by the peer"
	case refused:
		reason = "nobody listens"
	}
	now := l.t.cfg.Clock.Now()
	if l.logged.reason == reason && now.Sub(l.logged.at) < refusalLogEvery {
		return
	}
	l.logged.reason, l.logged.at = reason, now
	if isRefusal(err) {
		log.Error("a peer refused this member")
		return
	}
	log.Warn("cannot connect to a peer; will go on trying")
}

func (l *link) stats() PeerStats {
	s := PeerStats{ID: l.peer, Broken: l.broken.Load()}
	if up := l.upSince.Load(); up != nil {
		s.UpSince = *up
	}
	for c, out := range map[class]*ClassStats{control: &s.Control, bulk: &s.Bulk} {
		total, sent := l.queues[c].totals(), &l.sent[c]
		*out = ClassStats{
			Offered: total.Offered, Sent: sent.records.Load(), Dropped: total.Dropped + sent.lost.Load(),
			Frames: sent.frames.Load(), Bytes: sent.bytes.Load(),
		}
	}
	in := &l.received
	s.Received = ReceivedStats{Records: in.records.Load(), Frames: in.frames.Load(), Bytes: in.bytes.Load(), Failed: in.failed.Load()}
	return s
}
