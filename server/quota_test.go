package server

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// spongy is an engine whose file never shrinks until it is rewritten, as bbolt's.
type spongy struct {
	engine.Engine
	high     atomic.Int64
	rewrites *atomic.Int64
}

func (e *spongy) Stats() engine.Stats {
	s := e.Engine.Stats()
	for {
		high := e.high.Load()
		if high >= s.InUse || e.high.CompareAndSwap(high, s.InUse) {
			s.Allocated = max(high, s.InUse)
			return s
		}
	}
}

func (e *spongy) Rewrite(rest func() error) error {
	err := e.Engine.Rewrite(rest)
	if err == nil {
		e.rewrites.Add(1)
		e.high.Store(0)
	}
	return err
}

func putSome(n int) *pb.PutRequest {
	return &pb.PutRequest{Key: fmt.Appendf(nil, "big%04d", n), Value: make([]byte, 32<<10)}
}

func txnOf(success, failure *pb.RequestOp) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	if success != nil {
		r.Success = []*pb.RequestOp{success}
	}
	if failure != nil {
		r.Failure = []*pb.RequestOp{failure}
	}
	return r
}

// TestQuotaLifeCycle fills a cluster to its quota, frees space while it is full
// and its leader changes, and wants the alarm to go by itself.
func TestQuotaLifeCycle(t *testing.T) {
	c := newTestCluster(3)
	var rewrites atomic.Int64
	c.wrap = func(e engine.Engine) engine.Engine { return &spongy{Engine: e, rewrites: &rewrites} }
	c.change = func(cfg *Config) { cfg.QuotaBytes = 2 << 20 }
	members := c.startAll(t)
	ctx := callContext(t)
	leader(t, members...)
	if _, err := pb.NewLeaseClient(members[0].conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 9, TTL: 600}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		if _, err := members[n%3].kv().Put(ctx, putSome(n)); err != nil {
			refused(t, "the put that passes the quota", err, api.ErrNoSpace)
			break
		}
		if n > 100 {
			t.Fatalf("%d values of 32 KiB fit into 2 MiB", n)
		}
	}
	for _, m := range members {
		waitFor(t, "the alarm everywhere", func() bool { return len(m.view().alarms()) > 0 })
		mustRefuseWhenFull(ctx, t, m)
	}
	moveLeader(ctx, t, members)
	mustFreeWhenFull(ctx, t, members[1], n)
	for _, m := range members {
		waitFor(t, "space in every file", func() bool { return m.Store().Space().Needed() < m.cfg.QuotaBytes/2 })
	}
	for _, m := range members {
		waitFor(t, "the alarm to go", func() bool { return len(m.view().alarms()) == 0 })
		if _, err := m.kv().Put(ctx, putSome(1)); err != nil {
			t.Errorf("a put after the alarm: %v", err)
		}
	}
	if rewrites.Load() != 3 {
		t.Errorf("%d files were rewritten", rewrites.Load())
	}
}

func mustRefuseWhenFull(ctx context.Context, t *testing.T, m *testMember) {
	t.Helper()
	small := &pb.PutRequest{Key: []byte("small"), Value: []byte("v")}
	_, err := m.kv().Put(ctx, small)
	refused(t, "a put", err, api.ErrNoSpace)
	_, err = m.kv().Put(ctx, &pb.PutRequest{})
	if want := api.ErrNoSpace; m.Store().Space().Needed() < m.cfg.QuotaBytes-300 {
		refused(t, "a put without a key where the file has space", err, api.ErrEmptyKey)
	} else {
		refused(t, "a put without a key", err, want)
	}
	_, err = m.kv().Txn(ctx, txnOf(putOp("small"), nil))
	refused(t, "a transaction that puts", err, api.ErrNoSpace)
	_, err = m.kv().Txn(ctx, txnOf(deleteOp("none", ""), putOp("small")))
	refused(t, "a transaction that might put", err, api.ErrNoSpace)
	_, err = pb.NewLeaseClient(m.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	refused(t, "a grant", err, api.ErrNoSpace)
	status, err := pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
	if err != nil || len(status.Errors) == 0 {
		t.Errorf("status tells of no alarm: %v, %v", status, err)
	}
	if _, err := m.kv().Range(ctx, &pb.RangeRequest{Key: []byte("big0000")}); err != nil {
		t.Errorf("a range: %v", err)
	}
}

// mustFreeWhenFull uses all ways to free space, none of which may be refused.
func mustFreeWhenFull(ctx context.Context, t *testing.T, m *testMember, n int) {
	t.Helper()
	if _, err := pb.NewLeaseClient(m.conn).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 9}); err != nil {
		t.Errorf("a revocation: %v", err)
	}
	if _, err := m.kv().Txn(ctx, txnOf(deleteOp("big0000", ""), rangeOp(&pb.RangeRequest{Key: []byte("big0000")}))); err != nil {
		t.Errorf("a transaction that deletes: %v", err)
	}
	resp, err := m.kv().DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("big0001"), RangeEnd: []byte("big9")})
	if err != nil || resp.Deleted == 0 {
		t.Fatalf("a delete: %v, %v", resp, err)
	}
	if _, err := m.kv().Compact(ctx, &pb.CompactionRequest{Revision: resp.Header.Revision}); err != nil {
		t.Fatalf("a compaction: %v", err)
	}
}

// askToLead asks the leader to make another member the leader. A machine with other work
// may need more than one try: a transfer ends with the election timeout, and
// another member may win.
func askToLead(ctx context.Context, t *testing.T, now, next *testMember) {
	t.Helper()
	_, err := pb.NewMaintenanceClient(now.conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: uint64(next.id)})
	if s := status.Convert(err).Message(); err != nil && s != api.ErrNotLeader.Text && s != api.ErrTimeoutLeaderTransfer.Text {
		t.Fatal(err)
	}
}

// moveLeader makes another member lead, by the RPC.
func moveLeader(ctx context.Context, t *testing.T, members []*testMember) *testMember {
	t.Helper()
	next := members[0]
	if next == leader(t, members...) {
		next = members[1]
	}
	waitFor(t, "the chosen leader", func() bool {
		now := leader(t, members...)
		if now == next {
			return true
		}
		askToLead(ctx, t, now, next)
		return false
	})
	return next
}

func TestCosts(t *testing.T) {
	put := func(k, v int) op { return op{put: &putRequest{key: make([]byte, k), value: make([]byte, v)}} }
	nested := op{txn: &txnRequest{success: []op{put(1, 1), put(2, 2)}}}
	for what, c := range map[string]struct {
		txn  txnRequest
		want int64
	}{
		"nothing":             {txnRequest{}, 0},
		"a put":               {txnRequest{success: []op{put(3, 4)}}, 263},
		"the dearer branch":   {txnRequest{success: []op{put(3, 4)}, failure: []op{put(3, 5)}}, 264},
		"deletes cost none":   {txnRequest{success: []op{{del: &deleteRequest{}}, {rng: &rangeRequest{}}}}, 0},
		"nested transactions": {txnRequest{failure: []op{nested, put(0, 0)}}, 258 + 260 + 256},
	} {
		if got := txnCost(&c.txn); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

// TestQuotaIsCheckedFirst follows etcd's order: space before fields.
func TestQuotaIsCheckedFirst(t *testing.T) {
	s := newSolo(t, func(c *Config) { c.QuotaBytes = 100 })
	ctx := callContext(t)
	_, err := s.kv.Put(ctx, &pb.PutRequest{})
	refused(t, "a put without a key", err, api.ErrNoSpace)
	if got := s.view().alarms(); len(got) != 1 || got[0].MemberID != uint64(soloMember) || got[0].Alarm != pb.AlarmType_NOSPACE {
		t.Errorf("alarms: %v", got)
	}
	unlimited := newSolo(t, func(c *Config) { c.QuotaBytes = -1 })
	if _, err := unlimited.kv.Put(ctx, putSome(1)); err != nil {
		t.Errorf("without a quota: %v", err)
	}
}

// TestAlarmOfAPersonStays: only what the quota raised goes by itself.
func TestAlarmOfAPersonStays(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	client := pb.NewMaintenanceClient(s.conn)
	mine := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(soloMember), Alarm: pb.AlarmType_NOSPACE}
	if _, err := client.Alarm(ctx, mine); err != nil {
		t.Fatal(err)
	}
	s.upkeep.raiseNoSpace(ctx) // stands already: not the quota's
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 1 {
		t.Fatal("a person's alarm was cleared")
	}
	mine.Action = pb.AlarmRequest_DEACTIVATE
	if resp, err := client.Alarm(ctx, mine); err != nil || len(resp.Alarms) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	s.upkeep.raiseNoSpace(ctx)
	if len(s.view().alarms()) != 1 {
		t.Fatal("no alarm was raised")
	}
	s.upkeep.cfg.NoSpaceAutoDisarm = false
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 1 {
		t.Fatal("the alarm was cleared although that is turned off")
	}
	s.upkeep.cfg.NoSpaceAutoDisarm = true
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 0 {
		t.Fatal("the quota's alarm stays")
	}
}

// TestAlarmOfARemovedMemberGoes: nobody else would clear it.
func TestAlarmOfARemovedMemberGoes(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	const gone = uint64(soloMember) + 1
	raise := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: gone, Alarm: pb.AlarmType_NOSPACE}
	if err := s.upkeep.ask(ctx, commandQuotaAlarm, raise, nil); err != nil {
		t.Fatal(err)
	}
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 0 {
		t.Error("the alarm of a member that was removed stays")
	}
	if _, err := pb.NewMaintenanceClient(s.conn).Alarm(ctx, raise); err != nil {
		t.Fatal(err)
	}
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 1 {
		t.Error("a person's alarm was cleared")
	}
}

// TestQuotaHysteresis wants the alarm to stay between the two marks.
func TestQuotaHysteresis(t *testing.T) {
	s := newSolo(t, func(c *Config) { c.QuotaBytes = 1 << 20 })
	ctx := callContext(t)
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 980<<10)}); err != nil {
		t.Fatal(err)
	}
	s.upkeep.raiseNoSpace(ctx)
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 1 {
		t.Errorf("cleared at %d of %d", s.store.Space().Needed(), s.cfg.QuotaBytes)
	}
	s.cfg.QuotaBytes = 2 << 20
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 0 {
		t.Errorf("stays at %d of %d", s.store.Space().Needed(), s.cfg.QuotaBytes)
	}
}

// TestWatchedSize raises the alarm where no client asks: a follower whose own
// file reaches the quota.
func TestWatchedSize(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	if _, err := s.kv.Put(ctx, putSome(1)); err != nil {
		t.Fatal(err)
	}
	s.cfg.QuotaBytes = 1000
	s.upkeep.checkSpace(ctx)
	if len(s.view().alarms()) != 1 {
		t.Error("no alarm")
	}
}

// TestRoomIsMadeSoonWhenFull: clients are refused until the file is rewritten, so a
// rewrite just before the compaction that freed the space is no reason to wait long.
func TestRoomIsMadeSoonWhenFull(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	const quota = 1000
	full := mvcc.Space{Allocated: 990, InUse: 100}
	rewritten := func() bool {
		before := s.upkeep.defrag.mu.last
		s.upkeep.freeSpace(ctx, full, quota)
		return s.upkeep.defrag.mu.last.After(before)
	}
	if !rewritten() {
		t.Fatal("a full file with much free space is to stay")
	}
	s.clock.Advance(time.Second)
	if rewritten() {
		t.Error("the file is rewritten all the time")
	}
	s.clock.Advance(nearPause / 4)
	if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 2}); err != nil {
		t.Fatal(err)
	}
	if rewritten() {
		t.Error("the file is rewritten before the records are gone")
	}
	for more := true; more; {
		var err error
		if more, err = s.store.CompactStep(); err != nil {
			t.Fatal(err)
		}
	}
	if !rewritten() {
		t.Error("clients are refused for a minute more")
	}
}

// TestRewriteWaitsForCompaction: the file is not rewritten with records in it that
// are about to be deleted.
func TestRewriteWaitsForCompaction(t *testing.T) {
	s := newSolo(t, func(c *Config) { c.Maintenance.AutoDefragPercent = 50 })
	ctx := callContext(t)
	loose := mvcc.Space{Allocated: 1 << 30, InUse: 1 << 20}
	for range 3 {
		if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
			t.Fatal(err)
		}
	}
	if !s.upkeep.looseEnough(loose) {
		t.Fatal("a file that is nearly empty is to stay")
	}
	if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 3}); err != nil {
		t.Fatal(err)
	}
	if s.upkeep.looseEnough(loose) {
		t.Error("the file is to be rewritten before the records are gone")
	}
	for more := true; more; {
		var err error
		if more, err = s.store.CompactStep(); err != nil {
			t.Fatal(err)
		}
	}
	if !s.upkeep.looseEnough(loose) {
		t.Error("the file is to stay although the records are gone")
	}
}
