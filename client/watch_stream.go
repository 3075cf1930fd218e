package client

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// watchesPerStream bounds what one stream carries: few streams for many watches,
// and not all of them behind one HTTP/2 flow window.
const watchesPerStream = 2500

// watchHub shares streams out among watches. Its lock comes before a stream's,
// and a stream's before a watch's.
type watchHub struct {
	mu struct {
		sync.Mutex
		streams []*watchStream
	}
}

// watchStream is one Watch RPC at a time, opened anew whenever it breaks, and
// the watches that it carries.
type watchStream struct {
	core   *core
	alone  bool
	cancel context.CancelFunc
	kick   chan struct{} // tells the sender that there is something to send

	mu struct {
		sync.Mutex
		watches map[*watch]struct{} // all, the paused ones too
		byID    map[int64]*watch    // those that were asked for on this connection
		asked   []int64             // ids whose creation was not answered yet, in order
		lastID  int64
		out     []*pb.WatchRequest
		open    bool // there is a connection
		over    bool // takes no more watches
	}
}

// add gives a watch its place in a stream.
func (h *watchHub) add(c *core, w *watch) error {
	if len(w.create.Key) == 0 {
		return &Error{Op: pb.Watch_Watch_FullMethodName, Err: api.ErrEmptyKey}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.mu.streams {
		if !w.alone && s.take(w) {
			return nil
		}
	}
	s := &watchStream{core: c, alone: w.alone, kick: make(chan struct{}, 1)}
	s.mu.watches, s.mu.byID = map[*watch]struct{}{}, map[int64]*watch{}
	s.mu.watches[w], w.stream = struct{}{}, s
	ctx, cancel := context.WithCancel(c.ctx)
	s.cancel = cancel
	if !c.spawn(func() { s.run(ctx) }) {
		cancel()
		return &Error{Op: pb.Watch_Watch_FullMethodName, Err: ErrClosed}
	}
	h.mu.streams = append(h.mu.streams, s)
	return nil
}

// drop forgets a stream that is over.
func (h *watchHub) drop(s *watchStream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.streams = slices.DeleteFunc(h.mu.streams, func(o *watchStream) bool { return o == s })
}

// take adds a watch if the stream has room.
func (s *watchStream) take(w *watch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone || s.mu.over || len(s.mu.watches) >= watchesPerStream {
		return false
	}
	s.mu.watches[w], w.stream = struct{}{}, s
	s.askLocked(w)
	return true
}

// remove ends a watch; a stream without watches ends too.
func (s *watchStream) remove(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.watches, w)
	s.retractLocked(w)
	if len(s.mu.watches) == 0 {
		s.mu.over = true
		s.cancel()
	}
}

// resume asks for a paused watch again, from where its queue ended.
func (s *watchStream) resume(w *watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.paused {
		w.paused = false
		s.askLocked(w)
	}
}

// progress asks how far all watches of the stream are.
func (s *watchStream) progress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (s *watchStream) sendLocked(m *pb.WatchRequest) {
	if !s.mu.open {
		return // whatever is open then is asked for on the next connection
	}
	s.mu.out = append(s.mu.out, m)
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// askLocked asks the server for a watch, with an id that the stream never used.
func (s *watchStream) askLocked(w *watch) {
	if !s.mu.open {
		return
	}
	s.mu.lastID++
	w.id, w.held = s.mu.lastID, nil
	s.mu.byID[w.id] = w
	s.mu.asked = append(s.mu.asked, w.id)
	s.sendLocked(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: w.create.Key, RangeEnd: w.create.RangeEnd, PrevKv: w.create.PrevKv, Filters: w.create.Filters,
		ProgressNotify: true, Fragment: true, WatchId: w.id, StartRevision: int64(w.next),
	}}})
}

// retractLocked tells the server that a watch is no longer wanted. What still
// comes for its id is ignored.
func (s *watchStream) retractLocked(w *watch) {
	if s.mu.byID[w.id] != w {
		return
	}
	delete(s.mu.byID, w.id)
	s.sendLocked(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: w.id}}})
}

// run keeps a connection until the stream has no watches, or what stops it would
// stop it everywhere.
func (s *watchStream) run(ctx context.Context) {
	t := trial{core: s.core, request: requestOf(pb.Watch_Watch_FullMethodName, nil)}
	err := t.keep(ctx, func(ctx context.Context, conn *grpc.ClientConn, alive func()) error {
		err := s.serve(ctx, conn, alive)
		if ctx.Err() == nil {
			t.notice(NoticeWatchBroken, t.last.name, err)
		}
		return err
	})
	s.core.hub.drop(s)
	if s.core.ctx.Err() != nil {
		err = &Error{Op: pb.Watch_Watch_FullMethodName, Err: ErrClosed}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.over = true
	for w := range s.mu.watches {
		w.fail(err)
	}
}

// serve runs one connection. alive is called when the server has answered.
func (s *watchStream) serve(ctx context.Context, conn *grpc.ClientConn, alive func()) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		cancel()
		return err
	}
	s.connected()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { s.send(ctx, stream) })
	defer s.disconnected()
	for answered := false; ; {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if !answered {
			answered = true
			alive()
		}
		if err := s.handle(r); err != nil {
			return err
		}
	}
}

// connected asks for all watches on a new connection.
func (s *watchStream) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open, s.mu.out, s.mu.asked = true, nil, nil
	clear(s.mu.byID)
	for w := range s.mu.watches {
		if !w.paused {
			s.askLocked(w)
		}
	}
}

func (s *watchStream) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.open = false
}

// send is the only one who sends. It ends with the connection.
func (s *watchStream) send(ctx context.Context, stream pb.Watch_WatchClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		}
		s.mu.Lock()
		out := s.mu.out
		s.mu.out = nil
		s.mu.Unlock()
		for _, m := range out {
			if stream.Send(m) != nil {
				return // Recv says why
			}
		}
	}
}

// handle takes one answer. An error ends the connection, not the watches.
func (s *watchStream) handle(r *pb.WatchResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.WatchId
	if r.Created {
		if len(s.mu.asked) == 0 {
			return errors.New("the server created a watch that nobody asked for")
		}
		// Answers come in the order of requests; a refused one may lack the id.
		id, s.mu.asked = s.mu.asked[0], s.mu.asked[1:]
	}
	rev := Revision(r.Header.GetRevision())
	if id == progressOfAll && !r.Canceled {
		for _, w := range s.mu.byID {
			w.reached(rev)
		}
		return nil
	}
	w := s.mu.byID[id]
	switch {
	case w == nil: // retracted meanwhile
	case r.Canceled:
		err := canceled("", r)
		if known, ok := errors.Unwrap(err).(*api.Error); ok &&
			(known.Code == codes.Unavailable || known == api.ErrInvalidAuthToken || known == api.ErrAuthOldRevision) {
			return known // another connection may have a leader, another token
		}
		delete(s.mu.byID, id)
		w.fail(err)
	case r.Created:
		if w.next == 0 {
			w.next = rev + 1
		}
		w.reached(w.next - 1)
	case len(r.Events) > 0:
		if !w.arrived(r.Events, r.Fragment) {
			s.retractLocked(w)
			w.paused = true
			s.core.notice(NoticeWatchLagging, "", nil)
		}
	default:
		w.reached(rev)
	}
	return nil
}

// progressOfAll is the watch id of an answer that concerns all of a stream.
const progressOfAll = -1
