package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// seat is a named member of a cluster of real processes.
type seat struct {
	site
	name string
	id   uint64
	p    *process
}

func (s *seat) url() string { return "http://" + s.peer }

// begin starts the member as one of the given.
func (s *seat) begin(t *testing.T, state string, members []*seat, more ...string) {
	t.Helper()
	var initial []string
	for _, m := range members {
		initial = append(initial, m.name+"="+m.url())
	}
	s.p = s.start(t, append([]string{
		"--name=" + s.name, "--initial-cluster=" + strings.Join(initial, ","), "--initial-cluster-state=" + state,
		"--heartbeat-interval=20", "--election-timeout=200", "--unsafe-no-fsync",
	}, more...)...)
}

func newSeat(t *testing.T, name string) *seat { return &seat{site: newSite(t), name: name} }

// newSeats starts a cluster and waits until all its members know each other's names.
func newSeats(t *testing.T, n int, more ...string) []*seat {
	t.Helper()
	var all []*seat
	for i := range n {
		all = append(all, newSeat(t, fmt.Sprint("m", i)))
	}
	for _, s := range all {
		s.begin(t, "new", all, more...)
	}
	for _, s := range all {
		s.await(t, s.p)
	}
	for _, s := range all {
		s.id = s.whoami(t)
		s.eventually(t, "the names of all", func(list []*pb.Member) bool { return named(list) == n })
	}
	return all
}

func named(list []*pb.Member) (n int) {
	for _, m := range list {
		if m.Name != "" {
			n++
		}
	}
	return n
}

func (s *seat) admin(t *testing.T) pb.ClusterClient { return pb.NewClusterClient(dial(t, s.client)) }

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (s *seat) whoami(t *testing.T) uint64 {
	t.Helper()
	resp, err := s.admin(t).MemberList(limited(t), &pb.MemberListRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.MemberId
}

func (s *seat) eventually(t *testing.T, what string, cond func([]*pb.Member) bool) {
	t.Helper()
	var last []*pb.Member
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		resp, err := s.admin(t).MemberList(limited(t), &pb.MemberListRequest{})
		if err == nil {
			if last = resp.Members; cond(last) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never comes; members are %v, %v", what, last, err)
		}
	}
}

// steady repeats a change until the cluster's connections are old enough for it.
func steady(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := do(limited(t))
		text := status.Convert(err).Message()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || text != "etcdserver: unhealthy cluster" && !strings.Contains(text, "in sync with leader") {
			t.Fatal(err)
		}
	}
}

func (s *seat) add(t *testing.T, m *seat, learner bool) {
	t.Helper()
	steady(t, func(ctx context.Context) error {
		resp, err := s.admin(t).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.url()}, IsLearner: learner})
		m.id = resp.GetMember().GetID()
		return err
	})
}

func (s *seat) remove(t *testing.T, m *seat) {
	t.Helper()
	steady(t, func(ctx context.Context) error {
		_, err := s.admin(t).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.id})
		return err
	})
}

// seatLoad writes to the members in turn and remembers what was acknowledged.
type seatLoad struct {
	stop atomic.Bool
	done sync.WaitGroup
	keys sync.Map
	n    atomic.Int64
}

func startSeatLoad(t *testing.T, members ...*seat) *seatLoad {
	w := &seatLoad{}
	var conns []pb.KVClient
	for _, m := range members {
		conns = append(conns, pb.NewKVClient(dial(t, m.client)))
	}
	w.done.Go(func() {
		for i := 0; !w.stop.Load(); i++ {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			key := fmt.Sprint("w", i)
			if resp, err := conns[i%len(conns)].Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v")}); err == nil {
				w.keys.Store(key, resp.Header.Revision)
				w.n.Add(1)
			}
			cancel()
		}
	})
	return w
}

// check ends the writer and finds all of it at the given member.
func (w *seatLoad) check(t *testing.T, at *seat) {
	t.Helper()
	w.stop.Store(true)
	w.done.Wait()
	if w.n.Load() == 0 {
		t.Error("nothing was acknowledged")
	}
	resp, err := pb.NewKVClient(dial(t, at.client)).Range(limited(t), &pb.RangeRequest{Key: []byte("w"), RangeEnd: []byte("x"), KeysOnly: true},
		grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	revisions := map[string]int64{}
	for _, kv := range resp.Kvs {
		revisions[string(kv.Key)] = kv.ModRevision
	}
	w.keys.Range(func(key, rev any) bool {
		if mod := revisions[key.(string)]; mod != rev {
			t.Errorf("%s: revision %d, was acknowledged at %d", key, mod, rev)
			return false
		}
		return true
	})
}

// TestReplaceMembers replaces all members of a cluster of processes, one by one,
// under load: first a learner joins and is promoted, then the old one goes.
func TestReplaceMembers(t *testing.T) {
	t.Parallel() // most of its time it waits until connections are old enough
	all := newSeats(t, 3)
	old := append([]*seat(nil), all...)
	w := startSeatLoad(t, all[1], all[2])
	for i, out := range old[:2] {
		in := newSeat(t, fmt.Sprint("n", i))
		via := old[2]
		via.add(t, in, true)
		all = append(all, in)
		in.begin(t, "existing", all)
		via.eventually(t, "the learner", func(list []*pb.Member) bool { return named(list) == len(all) })
		steady(t, func(ctx context.Context) error {
			_, err := via.admin(t).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: in.id})
			return err
		})
		in.await(t, in.p)
		via.remove(t, out)
		expect(t, "a removed member", out.p, exitRemoved, "was removed from the cluster")
		all = all[1:]
		if got := in.whoami(t); got != in.id {
			t.Errorf("the new member is %x, was added as %x", got, in.id)
		}
		via.eventually(t, "three members", func(list []*pb.Member) bool { return named(list) == 3 && len(list) == 3 })
	}
	w.check(t, all[2])
	// Whoever was removed stays out, and says so in one line.
	old[0].begin(t, "existing", all)
	expect(t, "a removed member that returns", old[0].p, exitRemoved, "was removed from the cluster")
	old[1].begin(t, "new", old)
	expect(t, "another", old[1].p, exitRemoved, "was removed from the cluster")
	put(t, all[1].client, "still", "here")
}

// TestLostDirectory: a member whose directory was wiped must not vote as its old
// self, whichever way it is started.
func TestLostDirectory(t *testing.T) {
	t.Parallel() // most of its time it waits until connections are old enough
	all := newSeats(t, 3)
	out, via := all[0], all[1]
	out.p.signal(syscall.SIGKILL)
	out.p.code()
	put(t, via.client, "a", "b")
	for _, state := range []string{"new", "existing"} {
		if err := os.RemoveAll(out.dir); err != nil {
			t.Fatal(err)
		}
		out.begin(t, state, all)
		expect(t, "a wiped member, "+state, out.p, exitDamaged, "remove the member and add it again")
	}
	if err := os.RemoveAll(out.dir); err != nil {
		t.Fatal(err)
	}
	via.remove(t, out)
	via.add(t, out, false)
	out.begin(t, "existing", all)
	out.await(t, out.p)
	if value, _ := get(t, out.client, "a"); value != "b" {
		t.Errorf("the member that was added again reads %q", value)
	}
}

// TestForceNewCluster: the quorum is lost; one member goes on with all its data.
func TestForceNewCluster(t *testing.T) {
	t.Parallel() // most of its time it waits until connections are old enough
	all := newSeats(t, 3)
	for i := range 20 {
		put(t, all[i%3].client, fmt.Sprint("k", i), "v")
	}
	survivor := all[0]
	for i := range 20 {
		get(t, survivor.client, fmt.Sprint("k", i)) // linearizable: it has them
	}
	survivor.p.signal(syscall.SIGTERM)
	survivor.p.code()
	survivor.begin(t, "new", all, "--force-new-cluster")
	expect(t, "with living members", survivor.p, exitConfig, "stop all other members first")
	for _, m := range all[1:] {
		m.p.signal(syscall.SIGKILL)
		m.p.code()
	}
	for range 2 { // a flag that was left behind does no harm while the member is alone
		survivor.begin(t, "new", all, "--force-new-cluster")
		survivor.await(t, survivor.p)
		survivor.eventually(t, "one member", func(list []*pb.Member) bool { return len(list) == 1 && list[0].ID == survivor.id })
		survivor.p.signal(syscall.SIGTERM)
		if code := survivor.p.code(); code != exitOK {
			t.Fatalf("exit code %d", code)
		}
	}
	survivor.begin(t, "new", all)
	survivor.await(t, survivor.p)
	for i := range 20 {
		if value, _ := get(t, survivor.client, fmt.Sprint("k", i)); value != "v" {
			t.Errorf("k%d is lost", i)
		}
	}
	in := newSeat(t, "in")
	survivor.add(t, in, false)
	in.begin(t, "existing", []*seat{survivor, in})
	in.await(t, in.p)
	all[1].begin(t, "new", all)
	expect(t, "a member of before", all[1].p, exitRemoved, "was removed from the cluster")
	put(t, in.client, "after", "all")
	empty := newSeat(t, "empty")
	empty.begin(t, "new", []*seat{empty}, "--force-new-cluster")
	expect(t, "without data", empty.p, exitConfig, "--force-new-cluster makes a cluster of the data")
}

// TestJoinAnotherCluster: a member that comes to a cluster which does not know it
// is turned away before it has written anything.
func TestJoinAnotherCluster(t *testing.T) {
	t.Parallel() // most of its time it waits until connections are old enough
	all := newSeats(t, 1)
	stranger := newSeat(t, "stranger")
	stranger.begin(t, "existing", append(all, stranger))
	expect(t, "a member that was not added", stranger.p, exitConfig, "member count is unequal")
	stranger.begin(t, "existing", []*seat{stranger})
	expect(t, "a list of itself", stranger.p, exitConfig, "cannot fetch cluster info from peer urls")
	all[0].add(t, stranger, false)
	wrong := newSeat(t, "wrong")
	wrong.begin(t, "existing", append(all, wrong))
	expect(t, "another URL than was added", wrong.p, exitConfig, "no match found for existing member")
	stranger.begin(t, "existing", append(all, stranger), "--initial-cluster-token=whatever")
	stranger.await(t, stranger.p)
	put(t, stranger.client, "a", "b")
}
