package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

func (m *testMember) admin() pb.ClusterClient { return pb.NewClusterClient(m.conn) }

// join adds a member through via, starts it, and waits until it serves.
func (c *testCluster) join(t testing.TB, via *testMember, learner bool) *testMember {
	t.Helper()
	name, url := c.place()
	c.joins[name] = true
	added := mustAdd(t, via, url, learner)
	var now []string // what an operator would give as --initial-cluster
	for _, m := range added.Members {
		if m.ID == added.Member.ID {
			m.Name = name
		}
		now = append(now, m.Name+"="+m.PeerURLs[0])
	}
	c.initial = strings.Join(now, ",")
	m := c.start(t, name)
	if uint64(m.id) != added.Member.ID {
		t.Fatalf("the member has id %s, was added as %x", m.id, added.Member.ID)
	}
	waitFor(t, "the new member to be known by its name", func() bool {
		row, _ := via.members.find(m.id)
		return row.Name == name
	})
	return m
}

// mustAdd adds a member, as soon as the cluster is found healthy.
func mustAdd(t testing.TB, via *testMember, url string, learner bool) *pb.MemberAddResponse {
	t.Helper()
	var resp *pb.MemberAddResponse
	untilHealthy(t, func(ctx context.Context) (err error) {
		resp, err = via.admin().MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: learner})
		return err
	})
	return resp
}

// untilHealthy repeats what a cluster refuses whose connections are too new, or where a
// member has not heard yet that another one has started.
func untilHealthy(t testing.TB, do func(ctx context.Context) error) {
	t.Helper()
	passing := []string{api.ErrUnhealthy.Text, api.ErrLearnerNotReady.Text, api.ErrMemberNotEnoughStarted.Text}
	var err error
	waitFor(t, "a change of the membership", func() bool {
		err = do(callContext(t))
		return err == nil || !slices.Contains(passing, status.Convert(err).Message())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t testing.TB, via *testMember, id api.MemberID) {
	t.Helper()
	untilHealthy(t, func(ctx context.Context) error {
		_, err := via.admin().MemberRemove(ctx, &pb.MemberRemoveRequest{ID: uint64(id)})
		return err
	})
}

// ended waits for the end of a member and returns why it ended.
func (m *testMember) ended(t testing.TB) error {
	t.Helper()
	select {
	case err := <-m.done:
		m.done = nil
		return err
	case <-time.After(time.Minute):
		t.Fatalf("member %s goes on", m.cfg.Name)
		return nil
	}
}

// load writes until stop and keeps what was acknowledged.
type load struct {
	wait    sync.WaitGroup
	stopped atomic.Bool
	mu      sync.Mutex
	acked   map[string]int64
}

func startLoad(t testing.TB, members func() []*testMember) *load {
	l := &load{acked: map[string]int64{}}
	for w := range 4 {
		l.wait.Go(func() {
			for i := 0; !l.stopped.Load(); i++ {
				at := members()
				key := fmt.Sprintf("load-%d-%d", w, i)
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				resp, err := at[i%len(at)].kv().Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
				cancel()
				if err == nil {
					l.mu.Lock()
					l.acked[key] = resp.Header.Revision
					l.mu.Unlock()
				}
			}
		})
	}
	t.Cleanup(l.end) // what goes on after a failed test slows all others
	return l
}

func (l *load) end() {
	l.stopped.Store(true)
	l.wait.Wait()
}

// check ends the load and looks for each acknowledged write on each member.
func (l *load) check(t testing.TB, members ...*testMember) {
	t.Helper()
	l.end()
	if len(l.acked) < 20 {
		t.Errorf("only %d writes were acknowledged", len(l.acked))
	}
	for _, m := range members {
		resp, err := m.kv().Range(callContext(t), &pb.RangeRequest{Key: []byte("load-"), RangeEnd: []byte("load.")})
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]int64{}
		for _, kv := range resp.Kvs {
			have[string(kv.Key)] = kv.ModRevision
		}
		lost := 0
		for key, rev := range l.acked {
			if have[key] != rev {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("member %s lost %d of %d acknowledged writes", m.cfg.Name, lost, len(l.acked))
		}
		for _, err := range m.Store().Check() {
			t.Error(err)
		}
	}
}

// TestMembersChangeUnderLoad grows a cluster from one member to four, promotes a
// learner, replaces a member and removes leaders, all while clients write.
func TestMembersChangeUnderLoad(t *testing.T) {
	c := newTestCluster(1)
	first := c.start(t, "m0")
	leader(t, first)
	var current atomic.Pointer[[]*testMember]
	set := func(m ...*testMember) { current.Store(&m) }
	set(first)
	l := startLoad(t, func() []*testMember { return *current.Load() })

	second := c.join(t, first, false)
	third := c.join(t, second, true)
	set(first, second)
	untilHealthy(t, func(ctx context.Context) error {
		_, err := second.admin().MemberPromote(ctx, &pb.MemberPromoteRequest{ID: uint64(third.id)})
		return err
	})
	set(first, second, third)
	for round := range 2 {
		now := *current.Load()
		old := leader(t, now...)
		left := slices.DeleteFunc(slices.Clone(now), func(m *testMember) bool { return m == old })
		set(left...)
		via := left[0]
		if round == 1 {
			via = old // a leader that is asked for its own removal
		}
		mustRemove(t, via, old.id)
		if err := old.ended(t); !errors.Is(err, ErrRemoved) {
			t.Errorf("the removed leader ended with %v", err)
		}
		set(append(left, c.join(t, left[1], false))...)
	}
	members := *current.Load()
	untilHealthy(t, func(ctx context.Context) error {
		_, err := members[0].admin().MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: uint64(members[1].id), PeerURLs: []string{"http://127.0.0.1:9", "http://127.0.0.1:8"}})
		return err
	})
	l.check(t, members...)
	for _, m := range members {
		waitFor(t, "the update", func() bool {
			row, _ := m.members.find(members[1].id)
			return slices.Equal(row.PeerURLs, []string{"http://127.0.0.1:9", "http://127.0.0.1:8"})
		})
		if got := len(m.members.list()); got != 3 {
			t.Errorf("%s knows %d members", m.cfg.Name, got)
		}
		if got := len(m.members.current.Load().removed); got != 2 {
			t.Errorf("%s knows %d removed members", m.cfg.Name, got)
		}
	}
}

// TestMemberRefusals has etcd's texts in etcd's order of checks.
func TestMemberRefusals(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	lead := leader(t, members...)
	follower := members[0]
	if follower == lead {
		follower = members[1]
	}
	learnerRow := mustAdd(t, lead, "http://127.0.0.1:3001", true).Member
	if !learnerRow.IsLearner || learnerRow.Name != "" {
		t.Errorf("the learner is %v", learnerRow)
	}
	add := func(m *testMember, learner bool, urls ...string) error {
		_, err := m.admin().MemberAdd(callContext(t), &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner})
		return err
	}
	remove := func(m *testMember, id uint64) error {
		_, err := m.admin().MemberRemove(callContext(t), &pb.MemberRemoveRequest{ID: id})
		return err
	}
	promote := func(m *testMember, id uint64) error {
		_, err := m.admin().MemberPromote(callContext(t), &pb.MemberPromoteRequest{ID: id})
		return err
	}
	update := func(id uint64, urls ...string) error {
		_, err := follower.admin().MemberUpdate(callContext(t), &pb.MemberUpdateRequest{ID: id, PeerURLs: urls})
		return err
	}
	for name, check := range map[string]struct {
		err  error
		want *api.Error
	}{
		"no URL":                     {add(lead, false), api.ErrMemberBadURLs},
		"a URL without a port":       {add(lead, false, "http://127.0.0.1"), api.ErrMemberBadURLs},
		"a URL with a path":          {add(lead, false, "http://127.0.0.1:1/x"), api.ErrMemberBadURLs},
		"a URL with a strange tail":  {add(lead, true, "http://127.0.0.1:1:2"), api.ErrMemberBadURLs},
		"a taken URL":                {add(follower, false, "http://127.0.0.1:2380"), api.ErrPeerURLExists},
		"a second learner":           {add(follower, true, "http://127.0.0.1:3002"), api.ErrTooManyLearners},
		"a stranger's removal":       {remove(follower, 77), api.ErrMemberNotFound},
		"a member called 0":          {remove(follower, 0), api.ErrMemberNotFound},
		"a stranger's update":        {update(77, "http://127.0.0.1:5"), api.ErrMemberNotFound},
		"an update to a taken URL":   {update(uint64(follower.id), "http://127.0.0.1:3001"), api.ErrPeerURLExists},
		"a stranger's promotion":     {promote(lead, 77), api.ErrMemberNotFound},
		"the same by a follower":     {promote(follower, 77), api.ErrMemberNotFound},
		"a voter's promotion":        {promote(follower, uint64(lead.id)), api.ErrMemberNotLearner},
		"a learner that is not up":   {promote(follower, learnerRow.ID), api.ErrLearnerNotReady},
		"the same asked at its lead": {promote(lead, learnerRow.ID), api.ErrLearnerNotReady},
	} {
		s := status.Convert(check.err)
		if s.Message() != check.want.Text || s.Code() != check.want.Code {
			t.Errorf("%s: %v, want %v", name, check.err, check.want)
		}
	}
	if err := remove(follower, learnerRow.ID); err != nil {
		t.Errorf("a learner's removal: %v", err)
	}
	if err := remove(follower, learnerRow.ID); status.Convert(err).Message() != api.ErrMemberNotFound.Text {
		t.Errorf("a second removal: %v", err)
	}
	checkQuorumLoss(t, c, lead, follower, members)
}

// checkQuorumLoss: with one of three members down and one that never started, no
// plan that would cost the quorum passes.
func checkQuorumLoss(t *testing.T, c *testCluster, lead, follower *testMember, members []*testMember) {
	t.Helper()
	text := func(err error) string { return status.Convert(err).Message() }
	_, url := c.place()
	mustAdd(t, lead, url, false) // four voters, three started
	_, err := lead.admin().MemberAdd(callContext(t), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:3004"}})
	if err != nil && text(err) != api.ErrUnhealthy.Text {
		t.Errorf("a second unstarted voter: %v", err)
	}
	for _, m := range members {
		if m != lead && m != follower {
			m.end(t)
		}
	}
	waitFor(t, "the lost connection", func() bool {
		_, err := lead.admin().MemberAdd(callContext(t), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:3005"}})
		return text(err) == api.ErrUnhealthy.Text || text(err) == api.ErrMemberNotEnoughStarted.Text
	})
	for _, m := range []*testMember{lead, follower} {
		_, err := m.admin().MemberRemove(callContext(t), &pb.MemberRemoveRequest{ID: uint64(follower.id)})
		if text(err) != api.ErrUnhealthy.Text && text(err) != api.ErrMemberNotEnoughStarted.Text {
			t.Errorf("%s lets go of a member that the quorum needs: %v", m.cfg.Name, err)
		}
	}
}

func TestLastMemberStays(t *testing.T) {
	for _, strict := range []bool{true, false} {
		c := newTestCluster(1)
		c.change = func(cfg *Config) { cfg.StrictReconfig = strict }
		m := c.start(t, "m0")
		_, err := m.admin().MemberRemove(callContext(t), &pb.MemberRemoveRequest{ID: uint64(m.id)})
		if status.Convert(err).Message() != api.ErrMemberNotEnoughStarted.Text {
			t.Errorf("strict %v: %v", strict, err)
		}
		if _, err := m.kv().Put(callContext(t), &pb.PutRequest{Key: []byte("k")}); err != nil {
			t.Error(err)
		}
	}
}

// TestLearner: it does not vote, serves only what etcd's learners serve, and is
// promoted by itself if that was asked for.
func TestLearner(t *testing.T) {
	c := newTestCluster(1)
	auto := false
	c.change = func(cfg *Config) { cfg.AutoPromote = auto && cfg.Name == "m0" }
	first := c.start(t, "m0")
	ctx := callContext(t)
	if _, err := first.kv().Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	learner := c.join(t, first, true)
	waitFor(t, "the learner to catch up", func() bool { return learner.Store().Revision() == first.Store().Revision() })
	if resp, err := learner.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err != nil || resp.Count != 1 {
		t.Errorf("a serializable read: %v, %v", resp, err)
	}
	if resp, err := pb.NewMaintenanceClient(learner.conn).Status(ctx, &pb.StatusRequest{}); err != nil || !resp.IsLearner {
		t.Errorf("status: %v, %v", resp, err)
	}
	watch, err := pb.NewWatchClient(learner.conn).Watch(ctx)
	if err == nil {
		_, err = watch.Recv()
	}
	refused := map[string]error{"watch": err}
	_, refused["linearizable read"] = learner.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	_, refused["put"] = learner.kv().Put(ctx, &pb.PutRequest{Key: []byte("k")})
	_, refused["member list"] = learner.admin().MemberList(ctx, &pb.MemberListRequest{})
	_, refused["member add"] = learner.admin().MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
	_, refused["lease grant"] = pb.NewLeaseClient(learner.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 10})
	for what, err := range refused {
		if status.Convert(err).Message() != api.ErrNotSupportedForLearner.Text {
			t.Errorf("%s on a learner: %v", what, err)
		}
	}
	// It does not vote: without the only voter there is no leader, ever.
	first.end(t)
	waitFor(t, "the leader to be missed", func() bool { return learner.node.Status().Leader == 0 })
	if s := learner.node.Status(); s.Role.String() != "follower" {
		t.Errorf("a learner campaigns: %+v", s)
	}
	auto = true
	first = c.start(t, "m0")
	waitFor(t, "the promotion", func() bool {
		row, ok := first.members.find(learner.id)
		return ok && !row.Learner
	})
	waitFor(t, "the promoted member to serve", func() bool {
		_, err := learner.kv().Put(callContext(t), &pb.PutRequest{Key: []byte("k")})
		return err == nil
	})
}

// TestJoinBySnapshot: a member joins whose log would begin too late, so it gets
// the state; then it takes its part.
func TestJoinBySnapshot(t *testing.T) {
	c := newTestCluster(1)
	c.change = func(cfg *Config) { cfg.LogRetentionBytes = 1 << 10 }
	first := c.start(t, "m0")
	value := make([]byte, 1<<20)
	for i := 0; first.parts.node.Status().First < 20; i++ {
		if i > 300 {
			t.Fatal("the log is never cut")
		}
		if _, err := first.kv().Put(callContext(t), &pb.PutRequest{Key: []byte("k"), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	second := c.join(t, first, false)
	third := c.join(t, second, false)
	for _, m := range []*testMember{second, third} {
		resp, err := m.kv().Range(callContext(t), &pb.RangeRequest{Key: []byte("k")})
		if err != nil || resp.Count != 1 {
			t.Fatalf("%s: %v", m.cfg.Name, err)
		}
		if len(m.members.list()) != len(first.members.list()) {
			t.Errorf("%s knows %v", m.cfg.Name, m.members.list())
		}
	}
	// All of them know the same members after a restart.
	second.end(t)
	second = c.start(t, second.cfg.Name)
	first.end(t)
	waitFor(t, "the two that joined to go on alone", func() bool {
		_, err := second.kv().Put(callContext(t), &pb.PutRequest{Key: []byte("k")})
		return err == nil
	})
}

// TestRemovedMemberReturns: what was removed stays out, with its old directory,
// whether it had learned of its removal or not, and disturbs nobody.
func TestRemovedMemberReturns(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	lead := leader(t, members...)
	var out, stays *testMember
	for _, m := range members {
		if m != lead && out == nil {
			out = m
		} else if m != lead {
			stays = m
		}
	}
	out.end(t) // it is down and does not learn of its removal
	mustRemove(t, lead, out.id)
	term := lead.node.Status().Term
	back := c.start(t, out.cfg.Name)
	if err := back.ended(t); !errors.Is(err, ErrRemoved) {
		t.Errorf("the removed member ended with %v", err)
	}
	// The same after the others have restarted: removals are remembered.
	stays.end(t)
	stays = c.start(t, stays.cfg.Name)
	leader(t, lead, stays)
	back = c.start(t, out.cfg.Name)
	if err := back.ended(t); !errors.Is(err, ErrRemoved) {
		t.Errorf("the removed member ended with %v", err)
	}
	if s := lead.node.Status(); s.Leader != lead.id || s.Term != term {
		t.Errorf("the removed member has disturbed the cluster: term %d, then %+v", term, s)
	}
	if len(lead.members.list()) != 2 {
		t.Errorf("members are %v", lead.members.list())
	}
}

// TestJoinRefusals: a member that was not added, one that comes to the wrong
// cluster, and one that has lost its directory.
func TestJoinRefusals(t *testing.T) {
	c := newTestCluster(2)
	members := []*testMember{c.start(t, "m0"), c.start(t, "m1")}
	leader(t, members...)
	waitFor(t, "the names", func() bool { return started(members[0].members.list()) == 2 })
	refused := func(what, name, text string, want error) {
		t.Helper()
		s, err := open(c.config(name), c.world(name))
		if err == nil {
			s.closeNode()
			t.Fatalf("%s: it was let in", what)
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v and %q", what, err, want, text)
		}
	}
	before := c.initial
	name, _ := c.place()
	c.joins[name] = true
	refused("not added", name, "member count is unequal", ErrConfig)
	grown := c.initial
	c.initial = strings.Replace(grown, "m0=", "m9=", 1)
	c.initial = strings.Replace(c.initial, ":2381", ":2399", 1)
	c.initial = strings.Join(strings.Split(c.initial, ",")[1:], ",")
	refused("nobody answers", name, "cannot fetch cluster info from peer urls", ErrConfig)
	c.initial = strings.Replace(grown, "m1=http://127.0.0.1:2381", "m1=http://127.0.0.1:2399", 1)
	mustAdd(t, members[0], "http://127.0.0.1:2382", false)
	refused("another cluster", name, "PeerURLs: no match found for existing member", ErrConfig)
	c.initial = before
	refused("not in its own list", name, `couldn't find local name "m2"`, ErrConfig)
	c.initial = grown
	// m1 loses its disk and comes as if it was new.
	members[1].end(t)
	c.disks["m1"], c.engines["m1"], c.joins["m1"] = vfs.NewMem(9), engine.NewMemory(), true
	refused("a lost directory", "m1", "remove the member and add it again", ErrForgotten)
}

// TestJoinPastALaggingMember: one that has not heard of the newcomer does not turn
// it away when another one has.
func TestJoinPastALaggingMember(t *testing.T) {
	c := newTestCluster(3)
	cfg := c.config("m2")
	given, err := parseInitialCluster(c.initial, cfg.ClusterToken)
	if err != nil {
		t.Fatal(err)
	}
	older := slices.DeleteFunc(slices.Clone(given), func(m Member) bool { return m.Name == cfg.Name })
	first, second := older[0].PeerURLs[0], older[1].PeerURLs[0]
	lists := map[string][]Member{first: older, second: given}
	ask := func(_ context.Context, url string) (*announcement, error) {
		return &announcement{Cluster: 7, Members: lists[url]}, nil
	}
	h := &home{cfg: &cfg}
	if _, self, err := h.ask(ask, given); err != nil || self.Name != cfg.Name {
		t.Errorf("one of two knows the newcomer: member %q, %v", self.Name, err)
	}
	lists[second] = older
	if _, _, err := h.ask(ask, given); err == nil || !strings.Contains(err.Error(), "member count is unequal") {
		t.Errorf("nobody knows the newcomer: %v", err)
	}
}

// TestForceNewCluster: two of three members are gone. The third is made the only
// one, keeps all data, and the cluster grows again.
func TestForceNewCluster(t *testing.T) {
	c := newTestCluster(3)
	force := false
	c.change = func(cfg *Config) { cfg.ForceNewCluster = force }
	members := c.startAll(t)
	lead := leader(t, members...)
	for i := range 20 {
		if _, err := lead.kv().Put(callContext(t), &pb.PutRequest{Key: []byte(fmt.Sprint("k", i))}); err != nil {
			t.Fatal(err)
		}
	}
	survivor := members[0]
	waitFor(t, "the survivor to have all", func() bool { return survivor.Store().Revision() == lead.Store().Revision() })
	rev := survivor.Store().Revision()
	survivor.end(t)
	force = true
	if _, err := open(c.config("m0"), c.world("m0")); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "lives at") {
		t.Fatalf("with living members: %v", err)
	}
	members[1].end(t)
	members[2].end(t)
	alone := c.start(t, "m0")
	waitFor(t, "the survivor to serve", func() bool { return alone.node.Status().Leader == alone.id && len(alone.members.list()) == 1 })
	if got := alone.Store().Revision(); got < rev || alone.id != survivor.id || alone.cluster != survivor.cluster {
		t.Errorf("revision %d, was %d; member %s of %s, was %s of %s", got, rev, alone.id, alone.cluster, survivor.id, survivor.cluster)
	}
	resp, err := alone.kv().Range(callContext(t), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil || resp.Count != 20 {
		t.Fatalf("%v, %v", resp, err)
	}
	force = false
	back := c.start(t, "m1")
	if err := back.ended(t); !errors.Is(err, ErrRemoved) {
		t.Errorf("a member of before came back: %v", err)
	}
	joined := c.join(t, alone, false)
	if resp, err := joined.kv().Range(callContext(t), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}); err != nil || resp.Count != 20 {
		t.Errorf("the new member: %v, %v", resp, err)
	}
}
