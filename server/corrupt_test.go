package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// falsify changes one stored value on a member's disk so well that its checksum
// fits: what the comparison between members alone can find.
func falsify(t *testing.T, e *engine.Memory, old, changed string) {
	t.Helper()
	view, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	var batch engine.Batch
	view.Scan(engine.Key, nil, nil, func(k, v []byte) bool {
		i := bytes.Index(v, []byte(old))
		if i < 0 {
			return true
		}
		v = bytes.Clone(v)
		copy(v[i:], changed)
		table := crc32.MakeTable(crc32.Castagnoli)
		end := len(v) - 4
		binary.LittleEndian.PutUint32(v[end:], crc32.Update(crc32.Update(0, table, k), table, v[:end-2]))
		batch.Put(engine.Key, bytes.Clone(k), v)
		return true
	})
	if len(batch.Ops) != 1 || len(old) != len(changed) {
		t.Fatalf("%d records hold %q", len(batch.Ops), old)
	}
	if err := e.Commit(&batch); err != nil {
		t.Fatal(err)
	}
}

// corrupted starts three members, falsifies what one of them holds of a history
// and starts it again. Checks run when the test calls them.
func corrupted(t *testing.T, change func(*Config)) (c *testCluster, members []*testMember, bad *testMember) {
	t.Helper()
	c = newTestCluster(3)
	c.change = func(cfg *Config) {
		cfg.Maintenance.RollingHashCheckTime, cfg.Maintenance.AutoRebuild = 0, false
		if change != nil {
			change(cfg)
		}
	}
	for _, name := range c.names {
		members = append(members, c.start(t, name))
	}
	ctx := callContext(t)
	leader(t, members...)
	for i := range 30 {
		if _, err := members[i%3].kv().Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "k", i%4), Value: fmt.Appendf(nil, "value%02d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	at := members[0].Store().Revision()
	for _, m := range members {
		waitFor(t, "all to have applied", func() bool { return m.Store().Revision() >= at })
	}
	name := members[2].cfg.Name
	members[2].end(t)
	c.engines[name] = c.engines[name].Crash() // what is durable
	falsify(t, c.engines[name], "value29", "value9X")
	members[2] = c.start(t, name)
	ready := func() bool {
		_, err := members[2].kv().Range(ctx, &pb.RangeRequest{Key: []byte("k1"), RangeEnd: []byte{0}})
		return err == nil
	}
	waitFor(t, "the member to be back", ready)
	return c, members, members[2]
}

// blamed waits for the alarm and returns whom it names.
func blamed(t *testing.T, members []*testMember) (ids []uint64) {
	t.Helper()
	waitFor(t, "the alarm", func() bool {
		ids = nil
		for _, a := range members[0].view().alarms() {
			if a.Alarm == pb.AlarmType_CORRUPT {
				ids = append(ids, a.MemberID)
			}
		}
		return len(ids) > 0
	})
	return ids
}

// soundLeader makes sure that a sound member leads, whose check is then asked.
func soundLeader(ctx context.Context, t *testing.T, members []*testMember, bad *testMember) *testMember {
	t.Helper()
	now := leader(t, members...)
	for now == bad {
		askToLead(ctx, t, bad, members[0])
		now = leader(t, members...)
	}
	return now
}

func TestInitialCheck(t *testing.T) {
	c, members, bad := corrupted(t, nil)
	bad.end(t)
	c.change = func(cfg *Config) { cfg.Maintenance.InitialCorruptCheck = true }
	s, err := open(c.config(bad.cfg.Name), c.world(bad.cfg.Name))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Run(ctx); !errors.Is(err, ErrInconsistent) {
		t.Errorf("a member with a false history ends with %v", err)
	}
	good := members[0]
	good.end(t)
	good = c.start(t, good.cfg.Name)
	// Two are needed to serve, and the third does not start.
	if _, err := good.kv().Range(callContext(t), &pb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("a sound member does not serve: %v", err)
	}
}

func TestPeriodicCheck(t *testing.T) {
	_, members, bad := corrupted(t, nil)
	ctx := callContext(t)
	soundLeader(ctx, t, members, bad).upkeep.checkHistory(ctx)
	if ids := blamed(t, members); !slices.Equal(ids, []uint64{uint64(bad.id)}) {
		t.Errorf("blamed %x", ids)
	}
	_, err := members[0].kv().Put(ctx, &pb.PutRequest{Key: []byte("k")})
	refused(t, "a put", err, api.ErrCorrupt)
}

func TestCompactionCheck(t *testing.T) {
	_, members, bad := corrupted(t, func(cfg *Config) { cfg.Maintenance.CompactHashCheck = true })
	ctx := callContext(t)
	at := members[0].Store().Revision()
	if _, err := members[0].kv().Compact(ctx, &pb.CompactionRequest{Revision: int64(at)}); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		waitFor(t, "the compaction's hash", func() bool { return len(m.Store().CompactionHashes()) == 1 })
	}
	soundLeader(ctx, t, members, bad).upkeep.checkCompactions(ctx)
	if ids := blamed(t, members); !slices.Equal(ids, []uint64{uint64(bad.id)}) {
		t.Errorf("blamed %x", ids)
	}
}

// TestRollingCheck lets the false value decide a transaction: from then on the
// member applies something else than the others, and the check says since when.
func TestRollingCheck(t *testing.T) {
	_, members, bad := corrupted(t, nil)
	ctx := callContext(t)
	head := soundLeader(ctx, t, members, bad)
	put := func(i int) {
		if _, err := head.kv().Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "n", i%4)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		put(i)
	}
	head.upkeep.checkRolling(ctx)
	if alarms := head.view().alarms(); len(alarms) != 0 {
		t.Fatalf("nothing was applied that differs, and yet %v", alarms)
	}
	decide := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k1"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("value29")}}},
		Success: []*pb.RequestOp{putOp("yes")}, Failure: []*pb.RequestOp{putOp("no")},
	}
	resp, err := head.kv().Txn(ctx, decide)
	if err != nil || !resp.Succeeded {
		t.Fatal(resp, err)
	}
	for i := range 100 {
		put(i)
	}
	rev := head.Store().Revision()
	for _, m := range members {
		waitFor(t, "all to have applied", func() bool { return m.Store().Revision() == rev })
	}
	head.upkeep.checkRolling(ctx)
	if ids := blamed(t, members); !slices.Equal(ids, []uint64{uint64(bad.id)}) {
		t.Errorf("blamed %x", ids)
	}
	if got := head.upkeep.checks.divergent.Load(); got != resp.Header.Revision {
		t.Errorf("they part at %d, found %d", resp.Header.Revision, got)
	}
}

// TestSoundMembersPass runs all checks over members that are equal.
func TestSoundMembersPass(t *testing.T) {
	c := newTestCluster(3)
	c.change = func(cfg *Config) {
		cfg.Maintenance.CompactHashCheck, cfg.Maintenance.InitialCorruptCheck = true, true
		cfg.Maintenance.CorruptCheckTime, cfg.Maintenance.CompactHashCheckTime = 20*time.Millisecond, 20*time.Millisecond
		cfg.Maintenance.RollingHashCheckTime = 20 * time.Millisecond
	}
	members := c.startAll(t)
	ctx := callContext(t)
	leader(t, members...)
	begin := time.Now()
	for i := 0; time.Since(begin) < 2*time.Second; i++ {
		kv := members[i%3].kv()
		resp, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "k", i%9), Value: fmt.Append(nil, i)})
		if err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: resp.Header.Revision - 10}); err != nil {
				t.Fatal(err)
			}
		}
		if i == 300 {
			last := members[1]
			last.end(t)
			members[1] = c.start(t, last.cfg.Name)
		}
	}
	if alarms := members[0].view().alarms(); len(alarms) != 0 {
		t.Errorf("alarms: %v", alarms)
	}
}

func TestMinority(t *testing.T) {
	type groups = map[uint32][]api.MemberID
	for _, c := range []struct {
		groups groups
		all    int
		want   []api.MemberID
	}{
		{groups{1: {1, 2}, 2: {3}}, 3, []api.MemberID{3}},
		{groups{1: {1}, 2: {2, 3}}, 3, []api.MemberID{1}},
		{groups{1: {1}, 2: {2}}, 2, []api.MemberID{0}},
		{groups{1: {1}, 2: {2}}, 3, []api.MemberID{0}}, // the third did not answer
		{groups{1: {1, 2, 3}, 2: {5}, 3: {4}}, 5, []api.MemberID{4, 5}},
	} {
		if got := minority(c.groups, c.all); !slices.Equal(got, c.want) {
			t.Errorf("%v of %d: %v, want %v", c.groups, c.all, got, c.want)
		}
	}
}

// FuzzPeerAnswers decodes what a broken member could send.
func FuzzPeerAnswers(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendInt(appendInt(nil, fieldHashOutcome, hashOK), fieldHashCompact, 0))
	f.Add(appendUint(appendInt(nil, fieldRollingRevision, 9), fieldRollingValue, 1<<63))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p := decodeHash(peerAnswer{id: 1, body: b}); p.err == nil && p.id != 1 {
			t.Error("an answer changed its sender")
		}
		if r, err := decodeRolling(peerAnswer{id: 1, body: b}); err == nil && r.Revision == 0 {
			t.Error("an answer about no revision")
		}
		if _, err := askedRevision(b); err != nil {
			slog.Debug("refused", "error", err)
		}
	})
}
