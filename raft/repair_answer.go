package raft

import (
	"context"
	"encoding/binary"
	"fmt"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
)

// callRepair is the kind of the call by which a damaged member asks for repair. Its
// payload is empty, or a damaged member's id, 8 bytes, big-endian: the member itself
// wants to be helped to a leader that it does not know, or another one asks that
// leader for it. Kinds from 240 on are this package's own.
const callRepair uint8 = 255

func repairFor(damaged api.MemberID) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(damaged))
}

// repairAnswer is three numbers of 8 bytes, big-endian. A bound is the leader's. One
// of 0 comes from a member that does not lead, and leader is the one that it takes
// for it, if any.
type repairAnswer struct {
	leader api.MemberID
	term   api.Term
	bound  api.Index
}

func (a repairAnswer) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(a.leader))
	b = binary.BigEndian.AppendUint64(b, uint64(a.term))
	return binary.BigEndian.AppendUint64(b, uint64(a.bound))
}

func decodeRepairAnswer(b []byte) (repairAnswer, error) {
	if len(b) != 24 {
		return repairAnswer{}, fmt.Errorf("raft: an answer of %d bytes about a repair", len(b))
	}
	a := repairAnswer{
		leader: api.MemberID(binary.BigEndian.Uint64(b)),
		term:   api.Term(binary.BigEndian.Uint64(b[8:])),
		bound:  api.Index(binary.BigEndian.Uint64(b[16:])),
	}
	if a.bound > 0 && a.term == 0 {
		return repairAnswer{}, fmt.Errorf("raft: a bound of index %d without a term", a.bound)
	}
	return a, nil
}

// answerRepair tells a damaged member the bound that its new state must reach,
// and sends a state that reaches it; Repair says why that is enough. A member
// asks again and again; what is already on its way is not sent twice.
func (n *Node) answerRepair(ctx context.Context, from api.MemberID, payload []byte) ([]byte, error) {
	return n.repairAnswer(ctx, n, from, payload)
}

// waiter is how the answer waits: as a goroutine, or as a task of a Stepper.
type waiter interface {
	ReadBarrier(ctx context.Context) error
	ask(ctx context.Context, fn func()) error
	await(ctx context.Context, b *readBatch) error
}

func (n *Node) repairAnswer(ctx context.Context, w waiter, from api.MemberID, payload []byte) ([]byte, error) {
	st, damaged := n.Status(), from
	if len(payload) == 8 {
		damaged = api.MemberID(binary.BigEndian.Uint64(payload))
	}
	switch {
	case st.Role == Leader:
	case st.Leader != 0 && len(payload) == 8 && damaged == from: // who is asked for another asks nobody else
		return n.Call(ctx, st.Leader, callRepair, payload)
	default:
		return repairAnswer{leader: st.Leader}.encode(), nil
	}
	// A barrier may also pass through another leader. But who leads a term before
	// it and after it led it all the time, so the quorum confirmed this member.
	if err := w.ReadBarrier(ctx); err != nil {
		return nil, err
	}
	bound, err := n.repairBound(ctx, w, st.Term)
	if err != nil {
		return nil, err
	}
	if bound == 0 {
		return repairAnswer{leader: n.Status().Leader}.encode(), nil
	}
	// Should another leader's entries take the place of these, what is applied is
	// committed all the same, and no less than the bound promises.
	b := &readBatch{done: make(chan struct{}), born: n.ticks.Load(), index: uint64(bound)}
	n.waits.add(b)
	if err = w.await(ctx, b); err == nil {
		err = w.ask(ctx, func() { n.sendRepair(uint64(damaged), uint64(st.Term)) })
	}
	if err != nil {
		return nil, err
	}
	return repairAnswer{leader: n.cfg.ID, term: st.Term, bound: bound}.encode(), nil
}

// repairBound is the newest entry that this member, if it leads the term, may
// have sent to anybody; 0 if it does not lead it. Entries leave for followers
// before they are in the log here, so the log's own end is not enough.
func (n *Node) repairBound(ctx context.Context, w waiter, term api.Term) (bound api.Index, err error) {
	found := make(chan api.Index, 1)
	err = w.ask(ctx, func() {
		if n.core.role != etcdraft.StateLeader || n.core.term != uint64(term) {
			found <- 0
			return
		}
		last, _ := n.log.LastIndex()
		found <- api.Index(max(last, n.handed))
	})
	if err != nil {
		return 0, err
	}
	return <-found, nil
}

// sendRepair is an event of the loop.
func (n *Node) sendRepair(to, term uint64) {
	if h, held := n.holds[to]; held && h.until == 0 {
		return // one is under way
	}
	n.sendSnapshot(&raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(n.cfg.ID)), To: new(to), Term: new(term),
	})
}
