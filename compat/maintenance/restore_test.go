package maintenance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// history writes something of everything that a snapshot holds and returns the
// last revision: overwritten and deleted keys, a lease, a compaction, a user.
func history(ctx context.Context, t *testing.T, s *side) (rev int64) {
	t.Helper()
	if _, err := pb.NewLeaseClient(s.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 55, TTL: 3600}); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		put(ctx, t, s, fmt.Sprintf("k%03d", i%100), fmt.Sprint("value ", i))
	}
	_, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("leased"), Lease: 55})
	if err == nil {
		_, err = s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k001"), RangeEnd: []byte("k004")})
	}
	if err == nil {
		_, err = s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 50})
	}
	if err == nil {
		_, err = pb.NewAuthClient(s.conn).UserAdd(ctx, &pb.AuthUserAddRequest{Name: "alice", Password: "secret", Options: nil})
	}
	if err != nil {
		t.Fatal(err)
	}
	return 1 + 300 + 1 + 1
}

// replaced stops a cluster, has restore make each member's data anew, and
// starts it again.
func replaced(ctx context.Context, t *testing.T, name string, members int, restore func(m *cluster.Member, initial string)) *side {
	t.Helper()
	s := start(ctx, t, name, cluster.Options{NoSync: true, Members: members})
	initial := ""
	for i, m := range s.Members {
		m.Kill()
		if err := os.RemoveAll(m.DataDir()); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			initial += ","
		}
		initial += m.Name + "=" + m.PeerURL
	}
	for _, m := range s.Members {
		restore(m, initial)
	}
	for _, m := range s.Members {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return dial(t, s.Cluster)
}

// by restores with a program that takes etcdutl's flags.
func by(ctx context.Context, t *testing.T, program, file string, more ...string) func(m *cluster.Member, initial string) {
	return func(m *cluster.Member, initial string) {
		t.Helper()
		tool(ctx, t, program, append([]string{
			"snapshot", "restore", file, "--data-dir", m.DataDir(), "--name", m.Name, "--initial-cluster", initial,
			"--initial-advertise-peer-urls", m.PeerURL, "--initial-cluster-token", "compat",
		}, more...)...)
	}
}

// sameState compares what two stores serve: the keys at some revisions, the
// lease, the users.
func sameState(ctx context.Context, t *testing.T, a, b *side, revs ...int64) {
	t.Helper()
	for _, at := range append(revs, 0) {
		r := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: at}
		x, errX := a.kv.Range(ctx, r)
		y, errY := b.kv.Range(ctx, r)
		if verdict(errX) != verdict(errY) || texts(x.GetKvs()) != texts(y.GetKvs()) {
			t.Errorf("at %d: %s\n%s\nand %s\n%s", at, verdict(errX), texts(x.GetKvs()), verdict(errY), texts(y.GetKvs()))
		}
	}
	lease := func(s *side) string {
		resp, err := pb.NewLeaseClient(s.conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 55, Keys: true})
		return fmt.Sprint(verdict(err), resp.GetGrantedTTL(), resp.GetKeys())
	}
	users := func(s *side) string {
		resp, err := pb.NewAuthClient(s.conn).UserList(ctx, &pb.AuthUserListRequest{})
		return fmt.Sprint(verdict(err), resp.GetUsers())
	}
	if lease(a) != lease(b) || users(a) != users(b) {
		t.Errorf("leases %s and %s, users %s and %s", lease(a), lease(b), users(a), users(b))
	}
}

func snapshotOf(ctx context.Context, t *testing.T, s *side, program string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snapshot.db")
	tool(ctx, t, program, "--endpoints", s.Members[0].Endpoint, "snapshot", "save", file)
	return file
}

// inspect asks a program what a snapshot holds.
func inspect(ctx context.Context, t *testing.T, program, file string) (st struct {
	Hash      uint32
	Revision  int64
	TotalKey  int
	TotalSize int64
	Version   string
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(tool(ctx, t, program, "snapshot", "status", file, "-w", "json")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// TestRestoreFromEtcd makes three members of kvd from a snapshot of etcd: same
// keys, revisions, leases and users, and the next write has the next revision.
func TestRestoreFromEtcd(t *testing.T) {
	ctx := limited(t)
	from := start(ctx, t, "etcd", cluster.Options{NoSync: true})
	rev := history(ctx, t, from)
	for _, program := range []string{"etcdctl", "kvctl"} {
		file := snapshotOf(ctx, t, from, program)
		if a, b := inspect(ctx, t, "etcdutl", file), inspect(ctx, t, "kvctl", file); a != b || b.Revision != rev {
			t.Errorf("etcdutl says %+v, kvctl %+v", a, b)
		}
		to := replaced(ctx, t, "kvd", 3, by(ctx, t, "kvctl", file, "--bump-revision=0"))
		sameState(ctx, t, from, to, 1, 49, 50, 51, 200, rev-1, rev)
		if got := put(ctx, t, to, "next", "1"); got != rev+1 {
			t.Errorf("the next revision is %d, not %d", got, rev+1)
		}
		to.Close()
	}
}

// TestRestoreThereAndBack takes a state through kvd, etcd and kvd again, and
// from an etcd whose revision etcdutl has raised, and a raised one of ours to etcd.
func TestRestoreThereAndBack(t *testing.T) {
	ctx := limited(t)
	first := start(ctx, t, "kvd", cluster.Options{NoSync: true})
	rev := history(ctx, t, first)
	file := snapshotOf(ctx, t, first, "kvctl")
	if a, b := inspect(ctx, t, "etcdutl", file), inspect(ctx, t, "kvctl", file); a != b {
		t.Errorf("etcdutl says %+v, kvctl %+v", a, b)
	}
	second := replaced(ctx, t, "etcd", 1, by(ctx, t, "etcdutl", file))
	sameState(ctx, t, first, second, 50, 51, 200, rev)
	for i := range 20 {
		put(ctx, t, second, "k000", fmt.Sprint("of etcd ", i))
	}
	third := replaced(ctx, t, "kvd", 3, by(ctx, t, "kvctl", snapshotOf(ctx, t, second, "kvctl"), "--bump-revision=0"))
	sameState(ctx, t, second, third, 50, 51, 200, rev, rev+10)

	const raise = 1000
	raised := []string{"--bump-revision=1000", "--mark-compacted"}
	fourth := replaced(ctx, t, "etcd", 1, by(ctx, t, "etcdutl", snapshotOf(ctx, t, third, "kvctl"), raised...))
	fifth := replaced(ctx, t, "kvd", 1, by(ctx, t, "kvctl", snapshotOf(ctx, t, fourth, "kvctl"), "--bump-revision=0"))
	if got := put(ctx, t, fifth, "next", "1"); got != rev+20+raise+1 {
		t.Errorf("the revision after one that etcdutl raised is %d, not %d", got, rev+20+raise+1)
	}
	put(ctx, t, fourth, "next", "1")
	sameState(ctx, t, fourth, fifth, 50, rev+20+raise)
	sixth := replaced(ctx, t, "etcd", 1, by(ctx, t, "etcdutl", snapshotOf(ctx, t, fifth, "kvctl")))
	sameState(ctx, t, fifth, sixth, rev+20+raise)
}
