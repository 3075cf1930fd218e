package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/membershippb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft"
)

// upkeep is what keeps a member and its cluster sound beside requests: alarms,
// quota, compaction, defragmentation, comparisons between members, versions.
// What of it is replicated is changed by the apply goroutine alone.
type upkeep struct {
	s     *Server
	view  *view
	cfg   *Maintenance
	clock clock.Clock
	log   *slog.Logger

	alarms   *alarms        // replicated
	versions *versionState  // replicated
	checks   checkProgress  // of comparisons with other members
	defrag   defragProgress // of this member's file
}

// defragProgress keeps rewrites of the file apart.
type defragProgress struct {
	mu struct {
		sync.Mutex
		last time.Time // end of the last rewrite that was tried
	}
}

func newUpkeep(s *Server) *upkeep {
	return &upkeep{
		s: s, cfg: &s.cfg.Maintenance, clock: s.clock, log: s.log,
		alarms: newAlarms(), versions: newVersionState(),
	}
}

// load reads the replicated half from the store.
func (u *upkeep) load(store rawReader) error {
	if err := u.alarms.load(store); err != nil {
		return err
	}
	return u.versions.load(store)
}

// handle answers the questions of other members. Before Run.
func (u *upkeep) handle(node *raft.Node) {
	node.Handle(callHashKV, u.answerHashKV)
	node.Handle(callRolling, u.answerRolling)
	node.Handle(callVersion, u.answerVersion)
}

// start begins the background tasks. They end with ctx.
func (u *upkeep) start(ctx context.Context, wait *sync.WaitGroup) {
	wait.Go(func() { u.watchQuota(ctx) })
	wait.Go(func() { u.keepVersions(ctx) })
	wait.Go(func() { u.compactor().run(ctx) })
	leading := func(d time.Duration, check func(context.Context)) {
		if d > 0 {
			wait.Go(func() { u.whileLeading(ctx, d, check) })
		}
	}
	leading(u.cfg.CorruptCheckTime, u.checkHistory)
	leading(u.cfg.RollingHashCheckTime, u.checkRolling)
	if u.cfg.CompactHashCheck {
		leading(u.cfg.CompactHashCheckTime, u.checkCompactions)
	}
}

// whileLeading runs a check again and again, on the leader only.
func (u *upkeep) whileLeading(ctx context.Context, d time.Duration, check func(context.Context)) {
	every(ctx, u.clock, d, func(ctx context.Context) {
		if u.leads() {
			check(ctx)
		}
	})
}

func (u *upkeep) leads() bool {
	now := u.s.node.Status()
	return now.Leader == u.s.id
}

// apply evaluates a command of maintenance. Apply goroutine only.
func (u *upkeep) apply(x *txnRun, tx *mvcc.WriteTxn, c *raft.Command) error {
	switch c.Kind {
	case commandAlarm, commandQuotaAlarm, commandDivergent:
		var r pb.AlarmRequest
		if err := proto.Unmarshal(c.Body, &r); err != nil {
			return err
		}
		if planted.AlarmNotReplicated && !c.Wanted {
			return nil
		}
		before := u.alarms.current.Load().differs(u.s.id)
		for _, m := range u.alarms.apply(tx, &r, originOf(c.Kind)) {
			x.b = appendBytes(x.b, fieldAlarms, encodeAlarm(m))
		}
		if !before && u.alarms.current.Load().differs(u.s.id) {
			u.s.led.cutAll(false) // what they watch may be wrong
			u.s.distrust(errDiffers)
		}
		return nil
	case commandClusterVersion:
		var r membershippb.ClusterVersionSetRequest
		if err := proto.Unmarshal(c.Body, &r); err != nil {
			return err
		}
		return u.versions.setCluster(tx, r.Ver)
	case commandDowngrade:
		var r membershippb.DowngradeInfoSetRequest
		if err := proto.Unmarshal(c.Body, &r); err != nil {
			return err
		}
		return u.versions.setDowngrade(tx, &r)
	}
	return fmt.Errorf("unknown kind of command %d", c.Kind)
}

// ask replicates a request of maintenance and reads the answer into resp, if
// somebody wants it.
func (u *upkeep) ask(ctx context.Context, kind uint8, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	result, err := u.s.node.Propose(ctx, kind, "", body)
	if err != nil {
		return proposalError(err)
	}
	answer, ok := result.(*Encoded)
	if !ok {
		return fmt.Errorf("command of kind %d ended without an answer (%T)", kind, result)
	}
	if resp == nil {
		return nil
	}
	return proto.Unmarshal(answer.Buffers.Materialize(), resp)
}

// askAll asks all other members at once and waits for their answers.
func (u *upkeep) askAll(ctx context.Context, kind uint8, payload []byte) []peerAnswer {
	ctx, cancel := u.s.withTimeout(ctx, u.s.requestTimeout())
	defer cancel()
	var out []peerAnswer
	for _, m := range u.s.members.list() {
		if m.ID != u.s.id {
			out = append(out, peerAnswer{id: m.ID})
		}
	}
	var wait sync.WaitGroup
	for i := range out {
		wait.Go(func() { out[i].body, out[i].err = u.s.node.Call(ctx, out[i].id, kind, payload) })
	}
	wait.Wait()
	return out
}

// peerAnswer is what another member said.
type peerAnswer struct {
	id   api.MemberID
	body []byte
	err  error
}

// defragment rewrites the file, one caller at a time.
func (u *upkeep) defragment(ctx context.Context) error {
	u.defrag.mu.Lock()
	defer u.defrag.mu.Unlock()
	return u.defragmentLocked(ctx)
}

func (u *upkeep) defragmentLocked(ctx context.Context) error {
	begin, disk := u.clock.Now(), &u.s.metrics.disk
	u.log.Info("defragmenting")
	disk.defragInflight.Inc()
	defer disk.defragInflight.Dec()
	defer u.s.metrics.timed(disk.defrag)()
	before, after, err := u.s.Store().Defragment(ctx)
	u.defrag.mu.last = u.clock.Now()
	if err != nil {
		u.log.Warn("cannot defragment", slog.Any("error", err))
		return err
	}
	u.log.Info("defragmented", slog.Int64("bytes-before", before.Allocated), slog.Int64("bytes-after", after.Allocated),
		slog.String("took", u.clock.Now().Sub(begin).String()))
	return nil
}

// tryDefragment does so unless somebody is at it, or was a moment ago.
func (u *upkeep) tryDefragment(ctx context.Context, why string, pause time.Duration) {
	if !u.defrag.mu.TryLock() {
		return
	}
	defer u.defrag.mu.Unlock()
	last := u.defrag.mu.last
	if !last.IsZero() && u.clock.Now().Sub(last) < pause {
		return
	}
	u.log.Info("the database wants to be defragmented", slog.String("reason", why))
	_ = u.defragmentLocked(ctx) // logged there
}
