package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
)

// zeroSector makes a member's disk lose one sector of its log: the one where
// the text stands.
func (m *member) zeroSector(text string) {
	m.c.t.Helper()
	infos, err := m.disk.List("wal")
	if err != nil {
		m.c.t.Fatal(err)
	}
	for _, info := range infos {
		name := path.Join("wal", info.Name)
		data, err := readFile(m.disk, name)
		if err != nil {
			m.c.t.Fatal(err)
		}
		if at := bytes.Index(data, []byte(text)); at >= 0 {
			if err := m.disk.Damage(name, int64(at)&^(vfs.SectorSize-1), make([]byte, vfs.SectorSize)); err != nil {
				m.c.t.Fatal(err)
			}
			return
		}
	}
	m.c.t.Fatalf("the log of member %s lacks %q", m.id, text)
}

// mending is a member under repair.
type mending struct {
	m    *member
	node atomic.Pointer[Node] // set when it is repaired
}

// repair starts a member whose disk is damaged, as a server does.
func (m *member) repair() *mending {
	m.c.t.Helper()
	cfg := m.config()
	_, err := Open(cfg)
	var damage *DamagedError
	if !errors.As(err, &damage) {
		m.c.t.Fatalf("member %s opened a damaged log: %v", m.id, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended, gone := make(chan error, 1), make(chan struct{})
	m.stop, m.ended = stop, ended
	x := &mending{m: m}
	go func() {
		defer close(gone)
		defer func(t transport.Transport) { _ = t.Close() }(cfg.Transport)
		t, err := Repair(ctx, cfg, damage)
		if err != nil {
			ended <- err
			return
		}
		cfg.Transport = t
		node, err := Open(cfg)
		if err != nil {
			ended <- err
			return
		}
		x.node.Store(node)
		ended <- node.Run(ctx)
	}()
	m.c.t.Cleanup(func() { stop(); <-gone })
	return x
}

// repaired waits until the member is back.
func (x *mending) repaired() {
	c := x.m.c
	c.t.Helper()
	c.wait("the repair of member "+x.m.id.String(), func() bool {
		select {
		case err := <-x.m.ended:
			c.t.Fatalf("the repair of member %s: %v", x.m.id, err)
		default:
		}
		return x.node.Load() != nil
	})
	x.m.node = x.node.Load()
}

// acks proposes a command on m, which acknowledges it.
func (c *cluster) acks(m *member, body string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if _, err := m.node.Propose(ctx, 1, "", []byte(body)); err != nil {
		c.t.Fatalf("propose %q on %s: %v", body, m.id, err)
	}
}

// write proposes n commands on m; all are acknowledged when it returns.
func (c *cluster) write(m *member, from, n int) (acked []string) {
	c.t.Helper()
	for i := from; i < from+n; i++ {
		acked = append(acked, fmt.Sprintf("acked-%04d", i))
		c.acks(m, acked[len(acked)-1])
	}
	return acked
}

// proven writes n commands on m that every member has on disk, with a later
// batch that proves it: damage in the very last one may pass for a torn write.
func (c *cluster) proven(m *member, from, n int) (acked []string) {
	c.t.Helper()
	acked = c.write(m, from, n-1)
	c.settle()
	acked = append(acked, c.write(m, from+n-1, 1)...)
	c.settle()
	return acked
}

func (c *cluster) holdsAll(list, acked []string) {
	c.t.Helper()
	for _, body := range acked {
		if !slices.Contains(list, body) {
			c.t.Fatalf("%s was acknowledged and is lost; %d of %d are there", body, len(list), len(acked))
		}
	}
}

// split returns a leader and the other members.
func (c *cluster) split() (leader *member, others []*member) {
	c.t.Helper()
	leader = c.leader()
	for _, p := range c.peers {
		if m := c.members[p.ID]; m != leader {
			others = append(others, m)
		}
	}
	return leader, others
}

// TestDamagedMajorityLosesNothing is the script that costs etcd its data: one
// member lags, two have acknowledged, one of these loses a sector while all are
// down. The damaged one and the lagging one must not become a cluster of their
// own.
func TestDamagedMajorityLosesNothing(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	whole, others := c.split()
	hurt, lagging := others[0], others[1]
	acked := c.write(whole, 0, 2)
	c.settle()
	lagging.kill(false)
	acked = append(acked, c.write(whole, 2, 80)...)
	c.wait("the log on the other member", func() bool { return hurt.node.Status().Last == whole.node.Status().Last })
	whole.kill(true)
	hurt.kill(true)
	hurt.zeroSector("acked-0020")

	mended := hurt.repair()
	lagging.start()
	c.wait("many election timeouts", func() bool {
		if s := lagging.node.Status(); s.Leader != 0 || mended.node.Load() != nil {
			t.Fatalf("the cluster goes on without what it acknowledged: %+v", s)
		}
		return lagging.node.ticks.Load() > 80
	})
	whole.start()
	mended.repaired()
	c.acks(hurt, "after")
	c.holdsAll(c.settle(), append(acked, "after"))

	// It votes again: the others are no quorum without it.
	whole.kill(false)
	c.acks(c.leader(), "with its vote")
	c.holdsAll(c.settle(), append(acked, "after", "with its vote"))
}

// TestRepairUnderLoad damages a member while the others go on.
func TestRepairUnderLoad(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.LogRetention = 8 << 10 }).startAll()
	leader, others := c.split()
	hurt := others[0]
	acked := c.proven(leader, 0, 30)
	hurt.kill(true)
	hurt.zeroSector("acked-0010")
	mended := hurt.repair()
	for i := 0; mended.node.Load() == nil || i < 20; i += 5 {
		acked = append(acked, c.write(leader, len(acked), 5)...)
	}
	mended.repaired()
	acked = append(acked, c.write(hurt, len(acked), 10)...)
	c.holdsAll(c.settle(), acked)
	if s := hurt.node.Status(); s.Leader == 0 {
		t.Fatalf("no leader is known: %+v", s)
	}
}

// noWay is a transport that does not know where one member is.
type noWay struct {
	transport.Transport
	to api.MemberID
}

func (n noWay) Call(ctx context.Context, to api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	if to == n.to {
		return nil, errors.New("nobody knows where it is")
	}
	return n.Transport.Call(ctx, to, kind, payload)
}

// TestRepairByUnknownLeader: the leader has joined after what is damaged was written.
func TestRepairByUnknownLeader(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	leader, others := c.split()
	hurt := others[0]
	acked := c.proven(leader, 0, 30)
	hurt.kill(true)
	hurt.zeroSector("acked-0010")
	c.tune = func(cfg *Config) {
		cfg.Peers = slices.DeleteFunc(slices.Clone(cfg.Peers), func(p Peer) bool { return p.ID == leader.id })
		cfg.Transport = noWay{cfg.Transport, leader.id}
	}
	hurt.repair().repaired()
	c.holdsAll(c.settle(), acked)
}

// TestDamagedLeaderIsRepaired: what a leader acknowledged to itself counts, too.
func TestDamagedLeaderIsRepaired(t *testing.T) {
	c := newCluster(t, 3, nil).startAll()
	hurt, _ := c.split()
	acked := c.proven(hurt, 0, 40)
	term := hurt.node.Status().Term
	hurt.kill(true)
	hurt.zeroSector("acked-0020")
	hurt.repair().repaired()
	acked = append(acked, c.write(hurt, 40, 5)...)
	c.holdsAll(c.settle(), acked)
	if hs := hurt.node.wal.HardState(); hs.Term <= term {
		t.Fatalf("the term went from %d to %d", term, hs.Term)
	}
}

// TestLostStateIsRepaired: the log alone is no state if it was cut behind one.
func TestLostStateIsRepaired(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.LogRetention, cfg.SegmentSize = 1, 16<<10 }).startAll()
	leader, others := c.split()
	hurt := others[0]
	acked := c.write(leader, 0, 100)
	c.wait("a log without its beginning", func() bool {
		if hurt.node.Status().First > 2 {
			return true
		}
		acked = append(acked, c.write(leader, len(acked), 20)...)
		return false
	})
	hurt.kill(false)
	if err := hurt.disk.Remove(toyFile); err != nil {
		t.Fatal(err)
	}
	hurt.repair().repaired()
	c.holdsAll(c.settle(), acked)
}

// TestCrashInsideRepair cuts the power at every call of the file system in the
// phase. What is left must ask for repair again, or be repaired as a whole.
func TestCrashInsideRepair(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.SegmentSize = 32 << 10 }).startAll()
	leader, others := c.split()
	hurt := others[0]
	acked := c.proven(leader, 0, 40)
	hurt.kill(true)
	hurt.zeroSector("acked-0020")
	vote := api.Term(0)
	if _, found, err := wal.Open(hurt.disk.Clone(), "wal", wal.Identity{}, wal.Options{}); err != nil {
		vote = found.HardState.Term
	}
	var clones []*vfs.Mem
	var mu sync.Mutex // the repaired member calls its file system from several goroutines
	over := false
	disk := hurt.disk
	hurt.fs = vfs.NewFault(disk, vfs.Rule{Hook: func(call vfs.Call) {
		mu.Lock()
		defer mu.Unlock()
		if !over && call.Op != vfs.OpRead && call.Op != vfs.OpClose {
			clones = append(clones, disk.CrashClone(c.rng))
		}
	}})
	hurt.repair().repaired()
	mu.Lock()
	over = true
	mu.Unlock()
	c.settle()
	hurt.kill(false)

	again, done := 0, 0
	for i, disk := range clones {
		cfg := hurt.config()
		state := newToy(disk, 0)
		cfg.FS, cfg.StateMachine = disk, state
		r, err := recoverLog(&cfg)
		if damage := (*DamagedError)(nil); errors.As(err, &damage) {
			again++
			continue
		}
		if err != nil {
			t.Fatalf("crash %d: %v", i, err)
		}
		done++
		c.holdsAll(state.list(), acked)
		if r.hard.Term < vote {
			t.Fatalf("crash %d: the term fell from %d to %d", i, vote, r.hard.Term)
		}
		r.wal.Close()
	}
	if again == 0 || done == 0 {
		t.Fatalf("of %d crashes %d left the damage and %d a repaired member", len(clones), again, done)
	}
	for range 5 {
		hurt.disk, hurt.fs = clones[c.rng.IntN(len(clones))].Clone(), nil
		if _, err := Open(hurt.config()); errors.As(err, new(*DamagedError)) {
			hurt.repair().repaired()
		} else {
			hurt.start()
		}
		c.holdsAll(c.settle(), acked)
		hurt.kill(false)
	}
}

// spoiler is a transport that does something else with the first snapshot.
type spoiler struct {
	transport.Transport
	first func(to api.MemberID, m *raftpb.Message, s transport.Snapshot) bool
}

func (s spoiler) SendSnapshot(to api.MemberID, m *raftpb.Message, state transport.Snapshot) {
	if !s.first(to, m, state) {
		s.Transport.SendSnapshot(to, m, state)
	}
}

// TestLeaderLostInsideRepair kills the leader that has told a bound and was
// about to send its state.
func TestLeaderLostInsideRepair(t *testing.T) {
	var swallowed atomic.Uint64
	c := newCluster(t, 5, func(cfg *Config) {
		id := cfg.ID
		cfg.RequestTimeout = time.Second
		cfg.Transport = spoiler{cfg.Transport, func(_ api.MemberID, _ *raftpb.Message, s transport.Snapshot) bool {
			if !swallowed.CompareAndSwap(0, uint64(id)) {
				return false
			}
			s.Release()
			return true
		}}
	}).startAll()
	leader, others := c.split()
	hurt := others[0]
	acked := c.proven(leader, 0, 40)
	hurt.kill(true)
	hurt.zeroSector("acked-0020")
	mended := hurt.repair()
	c.wait("a snapshot that does not leave", func() bool { return swallowed.Load() != 0 })
	c.members[api.MemberID(swallowed.Load())].kill(false)
	acked = append(acked, c.write(c.leader(), 40, 10)...)
	mended.repaired()
	c.holdsAll(c.settle(), acked)
}

// TestOldSnapshotDoesNotRepair: a state below the bound is refused, whoever
// sends it.
func TestOldSnapshotDoesNotRepair(t *testing.T) {
	var sent atomic.Int32
	var c *cluster
	var old []byte
	var meta transport.SnapshotMeta
	c = newCluster(t, 3, func(cfg *Config) {
		inner := cfg.Transport
		cfg.Transport = spoiler{inner, func(to api.MemberID, m *raftpb.Message, s transport.Snapshot) bool {
			if sent.Add(1) > 2 {
				return false
			}
			s.Release()
			m.Snapshot = &raftpb.Snapshot{Metadata: snapshotMetadata(meta)}
			inner.SendSnapshot(to, m, &toySnapshot{meta, old})
			return true
		}}
	}).startAll()
	leader, others := c.split()
	hurt := others[0]
	acked := c.write(leader, 0, 10)
	c.settle()
	s, err := leader.toy.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	old, meta = s.(*toySnapshot).data, s.Meta()
	acked = append(acked, c.proven(leader, 10, 30)...)
	hurt.kill(true)
	hurt.zeroSector("acked-0020")
	hurt.repair().repaired()
	if n := sent.Load(); n < 3 {
		t.Fatalf("it took %d snapshots, the old ones among them", n)
	}
	if start := hurt.node.wal.Start(); start.Index <= meta.Index {
		t.Fatalf("the log begins after %d", start.Index)
	}
	c.holdsAll(c.settle(), acked)
}

// TestNobodyRepairsASingleMember: it says what is damaged instead.
func TestNobodyRepairsASingleMember(t *testing.T) {
	c := newCluster(t, 1, nil).startAll()
	m := c.leader()
	c.write(m, 0, 20)
	m.kill(true)
	m.zeroSector("acked-0010")
	cfg := m.config()
	_, err := Open(cfg)
	var damage *DamagedError
	if !errors.As(err, &damage) {
		t.Fatal(err)
	}
	_, err = Repair(context.Background(), cfg, damage)
	if cause := (*wal.DamageError)(nil); !errors.As(err, &cause) {
		t.Fatalf("the damage is not told: %v", err)
	}
}

func TestRepairAnswerCodec(t *testing.T) {
	want := repairAnswer{leader: 3, term: 4, bound: 5}
	if got, err := decodeRepairAnswer(want.encode()); got != want || err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 23), make([]byte, 25), repairAnswer{bound: 1}.encode()} {
		if a, err := decodeRepairAnswer(bad); err == nil {
			t.Errorf("%x was taken for %+v", bad, a)
		}
	}
}
