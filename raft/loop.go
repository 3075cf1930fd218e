package raft

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// loop is the goroutine that owns the core. It never waits for a disk, the
// network or the state machine: it takes events and hands out work.
func (n *Node) loop(ctx context.Context) error {
	ticker := n.cfg.Clock.NewTicker(n.cfg.TickInterval)
	defer ticker.Stop()
	campaign, gather := oneTimer{clock: n.cfg.Clock}, oneTimer{clock: n.cfg.Clock}
	defer campaign.set(-1)
	defer gather.set(-1)
	var in inboxItems
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.inbox.wake:
		case <-ticker.C():
			n.tick()
		case <-campaign.c:
			campaign.c = nil
			n.core.campaignDue()
		case <-gather.c:
			gather.c = nil
			n.core.gatherDue()
		}
		t := n.turn(&in)
		campaign.set(t.campaign)
		gather.set(t.gather)
	}
}

// turn gives the core all that has come in and carries out what it calls for.
// A simulation calls it, and the other goroutines' process, in an order of its
// own.
func (n *Node) turn(in *inboxItems) (t timers) {
	defer func() {
		if n.log.unread.Load() {
			_ = recover() // raft could not know that the node has failed
		}
	}()
	if n.log.unread.Load() {
		return t // the node ends
	}
	n.takeIn(in)
	fx := n.core.effects()
	n.carryOut(fx)
	p := &n.core.proposals
	full := p.count >= api.MaxQueuedCommands/2 || p.bytes >= api.MaxQueuedBytes/2
	if full || n.full {
		n.inbox.held(p)
	}
	n.full = full
	t = fx.timers
	fx.reset()
	return t
}

// oneTimer runs at most once at a time.
type oneTimer struct {
	clock clock.Clock
	timer clock.Timer
	c     <-chan time.Time
}

// set starts the timer anew, or stops it when d is negative.
func (t *oneTimer) set(d time.Duration) {
	if d == 0 {
		return
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	t.timer, t.c = nil, nil
	if d > 0 {
		t.timer = t.clock.NewTimer(d)
		t.c = t.timer.C()
	}
}

// takeIn gives the core what has come in.
func (n *Node) takeIn(in *inboxItems) {
	n.inbox.take(in, &n.core.proposals)
	for _, m := range in.messages {
		n.core.step(m)
	}
	for _, b := range in.batches {
		n.core.accept(b.term, b.batch)
	}
	n.core.propose(in.commands)
	for _, fn := range in.events {
		fn()
	}
	if in.reads != nil {
		n.readID++
		in.reads.id = n.readID
		n.reading = append(n.reading, in.reads)
		n.core.startRead(n.readID)
	}
}

// carryOut does what the core calls for. Messages leave first: followers write
// while this member does.
func (n *Node) carryOut(fx *effects) {
	if len(fx.sends) > 0 {
		n.send(fx.sends)
	}
	for _, f := range fx.forwards {
		// A batch that was not sent is sent again later.
		n.cfg.Transport.Forward(api.MemberID(f.to), api.Term(f.term), f.batch)
	}
	for _, m := range fx.appends {
		if entries := m.GetEntries(); len(entries) > 0 {
			n.handed = entries[len(entries)-1].GetIndex()
		}
		n.append.tasks.put(appendTask{msg: m})
		n.unmarked = 2
	}
	for _, t := range fx.applies {
		n.applies.put(applyWork{applyTask: t})
	}
	for _, m := range fx.snapshots {
		n.sendSnapshot(m)
	}
	for _, r := range fx.reads {
		n.readsEnd(r.id, func(b *readBatch) {
			b.index = r.index
			n.waits.add(b)
		})
	}
	for _, f := range fx.finished {
		f.command.finish(f.err)
	}
	n.publish(fx.changed)
}

// send passes messages on, those of one receiver together.
func (n *Node) send(msgs []*raftpb.Message) {
	for i, m := range msgs {
		if m == nil {
			continue // went with an earlier one
		}
		to := m.GetTo()
		batch := make([]*raftpb.Message, 0, len(msgs)-i)
		for j := i; j < len(msgs); j++ {
			if msgs[j] != nil && msgs[j].GetTo() == to {
				batch = append(batch, msgs[j])
				msgs[j] = nil
			}
		}
		n.cfg.Transport.Send(api.MemberID(to), batch)
	}
}

func (n *Node) tick() {
	n.ticks.Add(1)
	n.core.tick()
	n.expireReads()
	n.checkDisk()
	n.retrySnapshots(0)
	if n.core.now%uint64(n.cfg.ElectionTicks) == 0 {
		n.retain()
		n.markIdle()
	}
}

// markIdle marks a log to which nothing was written for an election timeout, so
// that damage in its last batch does not pass for a torn write.
func (n *Node) markIdle() {
	if n.unmarked == 0 {
		return
	}
	if n.unmarked--; n.unmarked == 0 {
		n.append.tasks.put(appendTask{})
	}
}

// expireReads gives up barriers that have waited too long.
func (n *Node) expireReads() {
	expired := func(b *readBatch) error {
		if b.born+n.timeoutTicks > n.core.now {
			return nil
		}
		return n.core.timeout(b.born)
	}
	n.waits.expire(expired)
	for len(n.reading) > 0 { // the oldest first
		oldest := n.reading[0]
		err := expired(oldest)
		if err == nil {
			return
		}
		n.core.dropReads(oldest.id)
		n.readsEnd(oldest.id, func(b *readBatch) { b.end(err) })
	}
}

// readsEnd takes the barriers up to id out.
func (n *Node) readsEnd(id uint64, each func(*readBatch)) {
	readers := 0
	n.reading = slices.DeleteFunc(n.reading, func(b *readBatch) bool {
		if b.id > id {
			return false
		}
		readers += b.readers
		each(b)
		return true
	})
	n.inbox.readEnds(readers)
}

// checkDisk lets a leader whose disk has stalled step aside: its followers could
// commit without it, but its own callers would wait.
func (n *Node) checkDisk() {
	since := n.append.busySince.Load()
	if since == 0 || n.core.now < n.askedAside {
		return
	}
	span := uint64(n.cfg.ElectionTicks)
	if stalled := n.core.now - (since - 1); stalled >= span && n.core.transfer(0) {
		n.askedAside = n.core.now + span
		n.logger.Warn("the disk has stalled; handing leadership over", slog.Uint64("ticks", stalled))
	}
}
