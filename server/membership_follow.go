package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// ErrRemoved: the cluster has removed this member; it will never be one again.
var ErrRemoved = errors.New("this member was removed from the cluster")

// ErrForgotten: the cluster knows this member by a data directory that it has
// lost. What it had promised with it, votes above all, is lost too.
var ErrForgotten = errors.New("this member's data directory is not the one with which it belongs to the cluster; " +
	"remove the member and add it again")

const (
	// stopAfterRemoval lets a removed member answer whoever asked for it.
	stopAfterRemoval = time.Second
)

// leaving are members that were removed a moment ago. They are still spoken to,
// so that they learn of it by themselves; then they are refused.
//
// A member that was removed must not stop before the others know it for ever. The
// change was committed by the old members: if those that stay crash before their
// disks have it, the vote of the one that left may be what they need to learn it
// again. So who stays refuses it only when its own store has the change, and who
// leaves stops when a majority of the new voters refuses it, or one of them does
// while the others are not to be reached.
type leaving struct {
	mu    sync.Mutex
	peers map[api.MemberID]transport.Peer

	self     bool                  // this member was removed
	waiting  map[api.MemberID]bool // then, the voters that have not refused it
	patience int                   // how many of them need not

	over  bool                         // this member stops because it was removed
	asked map[*context.CancelFunc]bool // who asked it to remove itself, and waits
}

// membersChanged makes the transport follow the applied membership. Apply
// goroutine only.
func (s *Server) membersChanged(old, now *memberSet) {
	for id := range now.removed {
		if old.removed[id] {
			continue
		}
		m, was := old.find(id)
		switch {
		case id == s.id:
			s.log.Warn("this member was removed from the cluster; it stops", slog.Any("member", id))
			s.parts.leaving.begin(now)
		case was:
			s.sendOff(m)
		default:
			s.parts.transport.Refuse(id)
		}
	}
	s.setPeers()
}

// begin notes that this member was removed from what is now the membership.
func (l *leaving) begin(now *memberSet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.self, l.waiting = true, map[api.MemberID]bool{}
	for _, m := range now.voters() {
		l.waiting[m.ID] = true
	}
	l.patience = len(l.waiting) - quorum(len(l.waiting))
}

// watch returns a context that ends also when this member stops because it was removed,
// and what must be called once it is not needed: it reports whether that has happened. There
// is no goroutine in it, as a simulation has none.
func (l *leaving) watch(ctx context.Context) (_ context.Context, gone func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		cancel()
	}
	if l.asked == nil {
		l.asked = map[*context.CancelFunc]bool{}
	}
	l.asked[&cancel] = true
	return ctx, func() bool {
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.asked, &cancel)
		return l.over
	}
}

// end tells who waits for this member's removal that it was removed.
func (l *leaving) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for cancel := range l.asked {
		(*cancel)()
	}
}

// refused notes that a peer knows of this member's removal, and reports whether
// enough of them do.
func (l *leaving) refused(by api.MemberID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, by)
	return l.self && len(l.waiting) <= l.patience
}

// silent reports that this member was removed, and reaches nobody of those that it
// still waits for.
func (l *leaving) silent(activeSince func(api.MemberID) time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.waiting {
		if !activeSince(id).IsZero() {
			return false
		}
	}
	return l.self
}

// sendOff keeps the connection with a removed member for a moment, and until its
// removal is on this member's disk.
func (s *Server) sendOff(m Member) {
	l := &s.parts.leaving
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers == nil {
		l.peers = map[api.MemberID]transport.Peer{}
	}
	l.peers[m.ID] = peerOf(m)
	at, _ := s.Store().Applied()
	var end func()
	end = func() {
		if s.Store().Durable() < at {
			s.clock.AfterFunc(2*s.cfg.HeartbeatInterval, end)
			return
		}
		l.mu.Lock()
		delete(l.peers, m.ID)
		l.mu.Unlock()
		s.parts.transport.Refuse(m.ID)
	}
	s.clock.AfterFunc(2*s.cfg.HeartbeatInterval, end)
}

func peerOf(m Member) transport.Peer {
	return transport.Peer{ID: m.ID, URLs: m.PeerURLs, Incarnation: m.Incarnation}
}

func (s *Server) setPeers() {
	var peers []transport.Peer
	for _, m := range s.members.list() {
		if m.ID != s.id {
			peers = append(peers, peerOf(m))
		}
	}
	l := &s.parts.leaving
	l.mu.Lock()
	for _, p := range l.peers {
		peers = append(peers, p)
	}
	l.mu.Unlock()
	s.parts.transport.SetPeers(peers)
}

// refuseRemoved closes the door to all that were ever removed. Before Run. A member
// that was removed itself goes on to leave where it was when it ended.
func (s *Server) refuseRemoved() {
	now := s.members.current.Load()
	for id := range now.removed {
		if id == s.id {
			s.log.Warn("this member was removed from the cluster; it stops when the others say so", slog.Any("member", id))
			s.parts.leaving.begin(now)
			continue
		}
		s.parts.transport.Refuse(id)
	}
}

// refusedBy hears that a peer does not talk with this member. The peer may be
// the one in the wrong, so this member stops only when it finds no leader either, or
// none but that peer: whoever belongs to the cluster has one. Any goroutine.
func (s *Server) refusedBy(peer api.MemberID, err error) {
	var reason error
	switch {
	case errors.Is(err, transport.ErrRemoved):
		reason = ErrRemoved
	case errors.Is(err, transport.ErrForgotten):
		reason = ErrForgotten
	default:
		return // logged by the transport; nothing that ends a member
	}
	if reason == ErrRemoved && s.parts.leaving.refused(peer) {
		s.clock.AfterFunc(stopAfterRemoval, func() { s.leave(fmt.Errorf("%w (member %s)", ErrRemoved, s.id)) })
		return
	}
	// Who was removed learns of no change after that: those that it waits for may be gone
	// for good, and the leader that it followed is no leader any more.
	silent := s.parts.leaving.silent(s.parts.transport.ActiveSince)
	s.clock.AfterFunc(3*s.cfg.ElectionTimeout, func() {
		// A learner never misses its leader: that it is refused by it must do.
		leader := s.node.Status().Leader
		if leader == 0 || leader == peer || silent && s.parts.leaving.silent(s.parts.transport.ActiveSince) {
			s.leave(fmt.Errorf("%w (member %s, says member %s)", reason, s.id, peer))
		}
	})
}

// leave ends a member that does not belong to the cluster.
func (s *Server) leave(reason error) {
	if errors.Is(reason, ErrRemoved) {
		s.parts.leaving.end()
	}
	s.fail(reason)
}
