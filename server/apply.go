package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft"
)

// applier is where consensus and state meet: it turns committed entries into
// revisions. It implements raft.StateMachine.
//
// Everything below is owned by the apply goroutine, unless it says otherwise.
// What Apply does depends on the entries and the store alone, never on time,
// configuration or which member it runs on, so all members stay equal.
type applier struct {
	s      *Server
	store  *mvcc.Store
	view   writeView // reused by each command, as the rest
	run    txnRun
	path   []bool
	guard  guard // the rights of who sent the command
	broken bool  // nothing is applied any more

	followed *memberSet // the members that membersChanged was told of last; nil: nobody is told
}

// Apply evaluates the commands of the entries in order, makes the outcome one
// new state of the store and publishes it.
func (a *applier) Apply(entries []raft.Entry) {
	begin := a.s.clock.Now() // of the next command
	for i := range entries {
		e := &entries[i]
		for _, c := range e.Commands {
			if a.broken {
				c.Err = api.ErrStopped
				continue
			}
			a.run.tally = tally{}
			a.command(e.Term, c)
			begin = a.observe(c, begin)
		}
		if e.Conf != nil && !a.broken {
			a.confChange(e)
		}
	}
	if len(entries) == 0 || a.broken {
		return
	}
	last := &entries[len(entries)-1]
	// The commit point was passed long ago: after a crash anywhere here the
	// entries come again, up to the index that the engine stored with the state.
	a.store.Seal(last.Index, last.Term)
	a.store.Publish()
	a.followMembers()
}

// observe measures a command that has been evaluated, and returns when that was.
func (a *applier) observe(c *raft.Command, begin time.Time) (end time.Time) {
	m := &a.s.metrics.store
	m.add(a.run.tally)
	end = m.command(c.Kind, c.Err == nil, begin)
	if took := end.Sub(begin); took > a.s.cfg.WarnApplyDuration {
		a.s.slowCommand(c.Kind, c.Body, took, c.Err)
	}
	return end
}

// keptAnswer is how large a buffer for answers is kept for the next command.
const keptAnswer = 64 << 10

// command evaluates one command in a transaction of its own.
func (a *applier) command(term api.Term, c *raft.Command) {
	if c.Err = a.s.upkeep.alarms.refuses(c.Kind, c.Body); c.Err != nil {
		return
	}
	tx := a.store.Begin()
	a.view = writeView{tx: tx}
	a.run = txnRun{ctx: context.Background(), view: &a.view, write: tx, wanted: c.Wanted, b: a.run.b[:0]}
	x := &a.run
	a.guard = guard{state: a.s.auth.now.Load()}
	if a.guard.state.Enabled {
		a.guard.who, a.guard.leaseKeys = auth.ParsePrincipal(c.Principal), leaseKeysOf(a.store)
	}
	if err := a.guard.admitCommand(c.Kind); err != nil {
		tx.End()
		a.refuse(c, err)
		return
	}
	var err error
	switch c.Kind {
	case commandPut:
		err = a.put(x, c.Body)
	case commandDelete:
		err = a.delete(x, c.Body)
	case commandTxn:
		err = a.txn(x, c.Body)
	case commandCompact:
		err = a.compact(tx, c.Body)
	case commandLeaseGrant:
		err = a.leaseGrant(x, c.Body)
	case commandLeaseRevoke:
		err = a.leaseRevoke(tx, c.Body)
	case commandLeaseExpire:
		a.leaseExpire(tx, term, c.Body)
		return
	case commandLeaseCheckpoint:
		err = a.leaseCheckpoint(tx, term, c.Body)
	case commandAttributes:
		err = a.attributes(tx, c.Body)
	case commandAlarm, commandQuotaAlarm, commandDivergent, commandClusterVersion, commandDowngrade:
		err = a.s.upkeep.apply(x, tx, c)
	case commandAuthEnable, commandAuthDisable, commandAuthSecret,
		commandUserAdd, commandUserDelete, commandUserChangePassword, commandUserGrantRole, commandUserRevokeRole,
		commandRoleAdd, commandRoleDelete, commandRoleGrantPermission, commandRoleRevokePermission:
		err = a.changeAuth(tx, c.Kind, c.Body)
	default:
		err = fmt.Errorf("unknown kind of command %d", c.Kind)
	}
	done := tx.End()
	if err != nil {
		a.refuse(c, err)
		return
	}
	if c.Wanted {
		c.Result = a.s.answer(x.b, done.Revision, term)
	}
	if cap(x.b) > keptAnswer {
		x.b = nil
	}
}

// answer adds the header to an answer's other fields.
func (s *Server) answer(fields []byte, rev api.Revision, term api.Term) *Encoded {
	m, b := newShortMessage(headerBytes + len(fields))
	b = s.appendFullHeader(b, rev, term)
	return m.finish(append(b, fields...))
}

// errHalt marks that a command cannot be applied although the other members
// apply it.
var errHalt = errors.New("this member cannot go on")

// refuse answers with an error. A record that cannot be read is no refusal: the
// members would part from here on, so this one stops.
func (a *applier) refuse(c *raft.Command, err error) {
	if errors.Is(err, mvcc.ErrCorrupt) || errors.Is(err, errHalt) {
		a.halt(fmt.Errorf("apply command %d of kind %d: %w", c.ID, c.Kind, err))
		err = api.ErrStopped
	}
	c.Err = err
}

// halt ends the member and waits until no client is served any more: what comes
// back from here is not the state that a reader was promised. Nothing of the
// command becomes visible or durable; the entries come again at the next start.
func (a *applier) halt(err error) {
	a.s.log.Error("the member stops", slog.Any("error", err))
	a.s.fail(err)
	<-a.s.unserved
	a.broken = true
}

func (a *applier) put(x *txnRun, body []byte) error {
	var r putRequest
	if err := r.decode(body); err != nil {
		return err
	}
	if a.guard.state.Enabled {
		asked := r // a copy, so that r itself stays off the heap
		if err := a.guard.check(&asked); err != nil {
			return err
		}
	}
	if err := verifyPut(x.view, &r, nil); err != nil {
		return err
	}
	return x.put(&r)
}

func (a *applier) delete(x *txnRun, body []byte) error {
	var r deleteRequest
	if err := r.decode(body); err != nil {
		return err
	}
	if a.guard.state.Enabled {
		asked := r
		if err := a.guard.check(&asked); err != nil {
			return err
		}
	}
	return x.delete(&r)
}

func (a *applier) txn(x *txnRun, body []byte) error {
	var r txnRequest
	if err := r.decode(body); err != nil {
		return err
	}
	if err := a.guard.check(&r); err != nil {
		return err
	}
	compared := keyspace(x.view)
	if planted.CompareOutside {
		compared = &writeView{tx: x.write, rev: a.store.Revision()}
	}
	path, err := x.prepare(compared, &r, a.path[:0])
	if err != nil {
		return err
	}
	a.path = path
	if _, err := x.run(&r, path); err != nil {
		// Writes may have been made, and nothing undoes them.
		return fmt.Errorf("%w: a verified transaction failed: %w", errHalt, err)
	}
	return nil
}

// prepare does the first two passes.
func (x *txnRun) prepare(compared keyspace, r *txnRequest, path []bool) ([]bool, error) {
	path, err := choose(compared, r, path)
	if err != nil {
		return nil, err
	}
	var gone []*deleteRequest
	_, err = verify(x.view, r, path, &gone)
	return path, err
}

func (a *applier) compact(tx *mvcc.WriteTxn, body []byte) error {
	var r pb.CompactionRequest
	if err := proto.Unmarshal(body, &r); err != nil {
		return err
	}
	return tx.Compact(api.Revision(r.Revision))
}

func (a *applier) leaseGrant(x *txnRun, body []byte) error {
	var r pb.LeaseGrantRequest
	if err := proto.Unmarshal(body, &r); err != nil {
		return err
	}
	if r.TTL > api.MaxLeaseTTL {
		return api.ErrLeaseTTLTooLarge
	}
	if err := x.write.LeaseGrant(api.LeaseID(r.ID), r.TTL); err != nil {
		return err
	}
	x.b = appendInt(x.b, fieldGrantID, r.ID)
	x.b = appendInt(x.b, fieldGrantTTL, r.TTL)
	return nil
}

func (a *applier) leaseRevoke(tx *mvcc.WriteTxn, body []byte) error {
	var r pb.LeaseRevokeRequest
	if err := proto.Unmarshal(body, &r); err != nil {
		return err
	}
	if err := a.guard.check(leaseAccess{useLease, api.LeaseID(r.ID)}); err != nil {
		return err
	}
	return tx.LeaseRevoke(api.LeaseID(r.ID))
}

// leaseExpire revokes the leases that the leader of this very term saw expire.
// A batch that reached the log in a later term is void: its leases may have
// been renewed by the leader since. tx is the transaction of the first one;
// each lease has its own, as it has its own revision.
func (a *applier) leaseExpire(tx *mvcc.WriteTxn, term api.Term, body []byte) {
	batch, err := decodeLeaseBatch(body)
	if err != nil || batch.term != term && !planted.OldLeaderExpires {
		tx.End()
		return
	}
	for _, l := range batch.leases {
		if tx == nil {
			tx = a.store.Begin()
		}
		// A lease that is gone was revoked by a client in the meantime.
		if err := tx.LeaseRevoke(l.id); err != nil {
			a.s.log.Debug("an expired lease was gone already", slog.Int64("lease", int64(l.id)))
		}
		tx.End()
		tx = nil
	}
	if tx != nil {
		tx.End()
	}
}

func (a *applier) leaseCheckpoint(tx *mvcc.WriteTxn, term api.Term, body []byte) error {
	batch, err := decodeLeaseBatch(body)
	if err != nil || batch.term != term {
		return err
	}
	for _, l := range batch.leases {
		if tx.LeaseExists(l.id) {
			tx.LeaseCheckpoint(l.id, l.remaining)
		}
	}
	return nil
}

// writeView is a write transaction as requests see it: with its own changes,
// or at an older revision.
type writeView struct {
	tx  *mvcc.WriteTxn
	rev api.Revision // 0: its own state
}

func (v *writeView) Revision() api.Revision { return v.tx.Revision() }

func (v *writeView) Get(key []byte) (mvcc.Item, bool) {
	if v.rev == 0 {
		return v.tx.Get(key)
	}
	var item mvcc.Item
	found := false
	v.tx.Scan(key, nil, v.rev, func(it mvcc.Item) bool {
		item, found = it, true
		return false
	})
	return item, found
}

func (v *writeView) Scan(key, end []byte, fn func(mvcc.Item) bool) {
	v.tx.Scan(key, end, v.rev, fn)
}

func (v *writeView) Count(key, end []byte) int { return v.tx.Count(key, end, v.rev) }

func (v *writeView) Record(it mvcc.Item) (mvcc.Record, error) { return v.tx.Record(it) }

func (v *writeView) leaseExists(id api.LeaseID) bool { return v.tx.LeaseExists(id) }

func (v *writeView) readable(at api.Revision) error {
	return readable(at, v.tx.Revision(), v.tx.CompactRevision())
}

func (v *writeView) at(rev api.Revision) (keyspace, func(), error) {
	return &writeView{tx: v.tx, rev: rev}, func() {}, nil
}

// readable is etcd's check of a range inside a transaction. Unlike a range by
// itself, a negative revision is not the latest one here, but a compacted one,
// save -1 in a store that never was compacted.
func readable(at, current, compacted api.Revision) error {
	switch {
	case at == 0:
		return nil
	case at > current:
		return api.ErrFutureRevision
	case at < compacted:
		return api.ErrCompacted
	}
	return nil
}
