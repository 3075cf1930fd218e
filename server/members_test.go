package server

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

// TestIdsAreEtcds compares with ids that etcd itself has printed: those of a
// start without flags, and of its own Procfile.
func TestIdsAreEtcds(t *testing.T) {
	for _, c := range []struct {
		initial, token, cluster string
		members                 []string
	}{
		{"default=http://localhost:2380", "etcd-cluster", "cdf818194e3a8c32", []string{"default 8e9e05c52164694d"}},
		{"infra1=http://127.0.0.1:12380,infra2=http://127.0.0.1:22380,infra3=http://127.0.0.1:32380", "etcd-cluster-1", "ef37ad9dc622a7c4",
			[]string{"infra1 8211f1d0f64f3269", "infra2 91bc3c398fb3c146", "infra3 fd422379fda50e48"}},
	} {
		list, err := parseInitialCluster(c.initial, c.token)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range list {
			got = append(got, m.Name+" "+m.ID.String())
		}
		if id := clusterID(list).String(); id != c.cluster || !slices.Equal(got, c.members) {
			t.Errorf("%s: cluster %s, members %q", c.initial, id, got)
		}
	}
	one, two := []string{"http://a:1", "http://b:1"}, []string{"http://b:1", "http://a:1"}
	if memberID(one, "t") != memberID(two, "t") {
		t.Error("the order of URLs changes the id")
	}
	if one[0] != "http://a:1" || two[0] != "http://b:1" {
		t.Error("memberID changed its argument")
	}
}

// rows is a store of raw rows.
type rows map[string]string

func (r rows) SetRaw(b engine.Bucket, key, value []byte) {
	r[string(b)+"/"+string(key)] = string(value)
}
func (r rows) DeleteRaw(b engine.Bucket, key []byte) { delete(r, string(b)+"/"+string(key)) }
func (r rows) Raw(b engine.Bucket, fn func(key, value []byte) bool) {
	for name, value := range r {
		if key, ok := strings.CutPrefix(name, string(b)+"/"); ok && !fn([]byte(key), []byte(value)) {
			return
		}
	}
}

func TestMemberRows(t *testing.T) {
	initial, err := parseInitialCluster("a=http://127.0.0.1:1,b=http://127.0.0.1:2", "t")
	if err != nil {
		t.Fatal(err)
	}
	store, m := rows{}, newMembers(initial)
	for _, row := range initial {
		m.set(store, row)
	}
	a := initial[slices.IndexFunc(initial, func(m Member) bool { return m.Name == "a" })]
	first := &publication{ID: a.ID, Name: "a2", ClientURLs: []string{"http://127.0.0.1:3"}}
	if err := m.publish(store, first); err != nil {
		t.Fatal(err)
	}
	if err := m.publish(store, &publication{ID: 77}); err != api.ErrMemberNotFound {
		t.Errorf("a stranger's attributes: %v", err)
	}
	// etcd reads and writes exactly this.
	want := fmt.Sprintf(`{"id":%d,"peerURLs":["http://127.0.0.1:1"],"name":"a2","clientURLs":["http://127.0.0.1:3"]}`, uint64(a.ID))
	if got := store["members/"+a.ID.String()]; got != want {
		t.Errorf("row: got %s, want %s", got, want)
	}
	other := *first
	other.Incarnation = 5
	if !m.published(first) || m.published(&other) || m.published(&publication{ID: a.ID, Name: "a"}) {
		t.Error("published does not say what is known")
	}
	if err := m.publish(store, &other); err != nil || !m.published(&other) {
		t.Errorf("the first incarnation: %v", err)
	}
	other.Incarnation = 6
	if err := m.publish(store, &other); !errors.Is(err, ErrForgotten) {
		t.Errorf("another incarnation: %v", err)
	}
	again := newMembers(nil)
	if err := again.load(store); err != nil || !reflect.DeepEqual(again.list(), m.list()) {
		t.Errorf("loaded %+v (%v), want %+v", again.list(), err, m.list())
	}
	m.remove(store, a.ID)
	if err := again.load(store); err != nil || len(again.list()) != 1 || !again.removed(a.ID) {
		t.Errorf("after a removal: %+v, %v", again.list(), err)
	}
	if _, ok := again.find(a.ID); ok {
		t.Error("a removed member is found")
	}
}

func TestMembersLoadKeepsInitialAndRefusesDamage(t *testing.T) {
	initial := []Member{{ID: 1, PeerURLs: []string{"http://127.0.0.1:1"}}}
	m := newMembers(initial)
	if err := m.load(rows{}); err != nil || len(m.list()) != 1 {
		t.Errorf("an empty bucket: %v, %+v", err, m.list())
	}
	for _, bad := range []rows{{"members/1": "{"}, {"members/x": `{"id":1}`}, {"members/2": `{"id":1}`}, {"members_removed/zz": "removed"}} {
		if err := m.load(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	if len(m.list()) != 1 {
		t.Error("a failed load changed the members")
	}
}

func TestParseURLs(t *testing.T) {
	got, err := ParseURLs(" http://b:2,unix:///x/y ,http://a:1,http://b:2,unix://sock")
	if want := []string{"http://a:1", "http://b:2", "unix:///x/y", "unix://sock"}; err != nil || !slices.Equal(urlStrings(got), want) {
		t.Errorf("got %q, %v", urlStrings(got), err)
	}
	for _, bad := range []string{"a:1", "tcp://a:1", "http://a", "http://a:1/p", "http://a:x", "unix://", "http://[::1", "%"} {
		if _, err := ParseURLs(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// toldTransport shows which peers a member speaks with.
type toldTransport struct {
	transport.Transport
	told func([]transport.Peer)
}

func (t toldTransport) SetPeers(peers []transport.Peer) {
	t.told(peers)
	t.Transport.SetPeers(peers)
}

// TestRestartKnowsDirectories: a member that starts again knows by which directory the
// cluster knows each of the others, whenever one of them comes: it would take one that
// has lost its own, and its votes with it, for what it was.
func TestRestartKnowsDirectories(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	again := members[2]
	waitFor(t, "all to have told of their directories", func() bool {
		return !slices.ContainsFunc(again.members.list(), func(m Member) bool { return m.Incarnation == 0 })
	})
	known := again.members.current.Load()
	again.end(t)
	told := make(chan []transport.Peer, 100)
	c.wired = func(t transport.Transport) transport.Transport {
		return toldTransport{t, func(peers []transport.Peer) { told <- peers }}
	}
	again = c.start(t, again.cfg.Name)
	leader(t, append(members[:2:2], again)...)
	waitFor(t, "a list of peers", func() bool { return len(told) > 0 })
	for len(told) > 0 {
		for _, p := range <-told {
			if m, _ := known.find(p.ID); p.Incarnation != m.Incarnation {
				t.Errorf("peer %v has directory %x, want %x", p.ID, p.Incarnation, m.Incarnation)
			}
		}
	}
}

// TestForgottenSaysTheLog: a member that has lost its directory and is let in all the
// same, by others that do not know of it yet, stops when it has read the log.
func TestForgottenSaysTheLog(t *testing.T) {
	c := newTestCluster(3)
	members := c.startAll(t)
	lost := members[2]
	waitFor(t, "its directory to be known", func() bool {
		m, _ := members[0].members.find(lost.id)
		return m.Incarnation != 0
	})
	for _, m := range members { // a leader that goes on takes it for what it was
		m.end(t)
	}
	name := lost.cfg.Name
	c.disks[name], c.engines[name] = vfs.NewMem(9), engine.NewMemory()
	for _, other := range c.names[:2] {
		c.start(t, other)
	}
	again := c.start(t, name)
	if again.id != lost.id {
		t.Fatalf("it is %s, was %s", again.id, lost.id)
	}
	if err := again.ended(t); !errors.Is(err, ErrForgotten) {
		t.Errorf("it ended with %v", err)
	}
}

// deafTransport sends one member no entries.
type deafTransport struct {
	transport.Transport
	deaf *atomic.Uint64
}

func (t deafTransport) Send(to api.MemberID, msgs []*raftpb.Message) {
	if uint64(to) == t.deaf.Load() {
		msgs = slices.DeleteFunc(slices.Clone(msgs), func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgApp })
	}
	t.Transport.Send(to, msgs)
}

// TestRemovedAnswers: a member that is asked to remove itself, and is gone before its log
// says so, answers when the others do.
func TestRemovedAnswers(t *testing.T) {
	c := newTestCluster(3)
	var deaf atomic.Uint64
	c.wired = func(t transport.Transport) transport.Transport { return deafTransport{t, &deaf} }
	members := c.startAll(t)
	lead := leader(t, members...)
	m := members[0]
	if m == lead {
		m = members[1]
	}
	waitFor(t, "connections", func() bool { return m.parts.members.mayRemove(m.id) == nil })
	deaf.Store(uint64(m.id))
	resp, err := m.admin().MemberRemove(callContext(t), &pb.MemberRemoveRequest{ID: uint64(m.id)})
	if err != nil || len(resp.Members) != 2 || slices.ContainsFunc(resp.Members, func(left *pb.Member) bool { return left.ID == uint64(m.id) }) {
		t.Errorf("it answered %v, %v", resp, err)
	}
	if m.members.removed(m.id) {
		t.Error("its log told it")
	}
	if err := m.ended(t); !errors.Is(err, ErrRemoved) {
		t.Errorf("it ended with %v", err)
	}
}
