package maintenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// traffic writes to a store until it is stopped, or refused: overwrites,
// deletes of ranges, transactions of several keys, leases that come and go.
type traffic struct {
	stop   context.CancelFunc
	wait   sync.WaitGroup
	writes atomic.Int64
}

func startTraffic(ctx context.Context, s *side) *traffic {
	t := &traffic{}
	ctx, t.stop = context.WithCancel(ctx)
	for i := range 4 {
		t.wait.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for ctx.Err() == nil {
				switch err := writeSomething(ctx, s, rng, i); {
				case err == nil:
					t.writes.Add(1)
				case strings.Contains(err.Error(), "space exceeded"):
					return // the fence
				default: // a member died, maybe the leader
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	return t
}

func (t *traffic) halt() {
	t.stop()
	t.wait.Wait()
}

func writeSomething(ctx context.Context, s *side, rng *rand.Rand, writer int) error {
	key := []byte(fmt.Sprintf("k%03d", rng.IntN(200)))
	put := &pb.PutRequest{Key: key, Value: fmt.Append(nil, rng.Uint64())}
	var err error
	switch rng.IntN(10) {
	case 0:
		_, err = s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key, RangeEnd: append(key, '~')})
	case 1:
		ops := []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}}
		for i := range 3 {
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "t%d.%d", i, rng.IntN(9))}}})
		}
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("u"), RangeEnd: []byte("v")}}})
		_, err = s.kv.Txn(ctx, &pb.TxnRequest{Success: ops})
	case 2:
		leases := pb.NewLeaseClient(s.conn)
		var grant *pb.LeaseGrantResponse
		if grant, err = leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600 + int64(writer)}); err != nil {
			return err
		}
		for i := range 3 {
			if _, err = s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "u%d.%d", writer, i), Lease: grant.ID}); err != nil {
				return err
			}
		}
		if rng.IntN(2) == 0 {
			_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: grant.ID})
		}
	default:
		_, err = s.kv.Put(ctx, put)
	}
	return err
}

// migrating is a kvctl that follows.
type migrating struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	log  logged
	done chan error
}

// logged is what a process has printed so far.
type logged struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.String()
}

func migrate(ctx context.Context, t *testing.T, s *side, args ...string) *migrating {
	t.Helper()
	path, err := cluster.BinaryPath("kvctl")
	if err != nil {
		t.Fatal(err)
	}
	m := &migrating{done: make(chan error, 1)}
	m.cmd = exec.CommandContext(ctx, path, append([]string{"--endpoints", strings.Join(s.Endpoints(), ","), "migrate"}, args...)...)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { m.done <- m.cmd.Wait() }()
	return m
}

func revisionOf(ctx context.Context, t *testing.T, s *side) int64 {
	t.Helper()
	resp, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// TestMigrate follows an etcd of three members under writes, loses one of them
// meanwhile, cuts over, and holds the cluster made of the result against the source: hashes of
// the whole history, keys at old revisions, leases.
func TestMigrate(t *testing.T) {
	ctx := limited(t)
	from := start(ctx, t, "etcd", cluster.Options{NoSync: true, Members: 3})
	history(ctx, t, from)
	w := startTraffic(ctx, from)
	file := filepath.Join(t.TempDir(), "migrated.db")
	m := migrate(ctx, t, from, "--out", file)
	eventually(ctx, t, "the copy", func() bool { return strings.Contains(m.log.String(), "following writes") })
	begun := revisionOf(ctx, t, from)
	more := func(n int64) {
		goal := w.writes.Load() + n
		eventually(ctx, t, "writes", func() bool { return w.writes.Load() >= goal })
	}
	more(300)
	from.Members[2].Kill()
	more(300)
	w.halt()
	if _, err := io.WriteString(m.in, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-m.done; err != nil {
		t.Fatalf("kvctl migrate: %v\n%s", err, m.log.String())
	}
	// Not before: a write that nobody waits for any more may have come last.
	end := revisionOf(ctx, t, from)
	if log := m.log.String(); !strings.Contains(log, "are equal, SHA-256") || !strings.Contains(log, fmt.Sprintf("Migrated to %s at revision %d", file, end)) {
		t.Errorf("kvctl says\n%s", log)
	}
	to := replaced(ctx, t, "kvd", 3, by(ctx, t, "kvctl", file, "--bump-revision=0"))
	sameState(ctx, t, from, to, 50, 51, 200, begun-1, begun, begun+1, (begun+end)/2, end-1, end)
	sameHistory(ctx, t, from, to, end)
	sameLeases(ctx, t, from, to)
	if got := put(ctx, t, to, "next", "1"); got != end+1 {
		t.Errorf("the next revision is %d, not %d", got, end+1)
	}
}

// sameHistory compares etcd's hash of everything since the compaction.
func sameHistory(ctx context.Context, t *testing.T, a, b *side, rev int64) {
	t.Helper()
	x, errX := a.admin.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
	y, errY := b.admin.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
	if err := errors.Join(errX, errY); err != nil {
		t.Fatal(err)
	}
	if x.Hash != y.Hash || x.CompactRevision != y.CompactRevision {
		t.Errorf("histories: %08x compacted at %d, and %08x compacted at %d", x.Hash, x.CompactRevision, y.Hash, y.CompactRevision)
	}
}

func sameLeases(ctx context.Context, t *testing.T, a, b *side) {
	t.Helper()
	list := func(s *side) string {
		client := pb.NewLeaseClient(s.conn)
		resp, err := client.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		all := map[int64]string{}
		for _, l := range resp.Leases {
			ttl, err := client.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(ttl.Keys, bytes.Compare) // etcd's come in any order
			all[l.ID] = fmt.Sprintf("%d %q", ttl.GrantedTTL, ttl.Keys)
		}
		return fmt.Sprint(all)
	}
	if x, y := list(a), list(b); x != y {
		t.Errorf("leases:\n%s\nand\n%s", x, y)
	}
}

// TestMigrateFenced cuts over under writes, which the fence stops; without it,
// and with a writer left, the migration does not pretend.
func TestMigrateFenced(t *testing.T) {
	ctx := limited(t)
	from := start(ctx, t, "etcd", cluster.Options{NoSync: true})
	history(ctx, t, from)
	w := startTraffic(ctx, from)
	dir := t.TempDir()
	m := migrate(ctx, t, from, "--out", filepath.Join(dir, "a.db"), "--now")
	if err := <-m.done; err == nil || !strings.Contains(m.log.String(), "the source is still written to") {
		t.Errorf("with writers: %v\n%s", err, m.log.String())
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("it leaves %v, %v", files, err)
	}
	m = migrate(ctx, t, from, "--dry-run")
	if err := <-m.done; err != nil || !strings.Contains(m.log.String(), "Nothing was changed") {
		t.Errorf("a dry run: %v\n%s", err, m.log.String())
	}
	file := filepath.Join(dir, "b.db")
	m = migrate(ctx, t, from, "--out", file, "--now", "--fence")
	if err := <-m.done; err != nil {
		t.Fatalf("with a fence: %v\n%s", err, m.log.String())
	}
	w.halt()
	end := revisionOf(ctx, t, from)
	to := replaced(ctx, t, "kvd", 1, by(ctx, t, "kvctl", file, "--bump-revision=0"))
	sameState(ctx, t, from, to, end)
	sameHistory(ctx, t, from, to, end)
	if _, err := to.kv.Put(ctx, &pb.PutRequest{Key: []byte("next")}); err != nil {
		t.Errorf("the fence came along: %v", err)
	}
}

// TestEtcdDirectory gives kvd an etcd's directory by mistake. It is refused
// untouched, and the way that the refusal names works.
func TestEtcdDirectory(t *testing.T) {
	ctx := limited(t)
	from := start(ctx, t, "etcd", cluster.Options{NoSync: true})
	rev := history(ctx, t, from)
	if err := from.Members[0].Stop(time.Minute); err != nil {
		t.Fatal(err)
	}
	dir := from.Members[0].DataDir()
	path, err := cluster.BinaryPath("kvd")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, path, "--data-dir", dir).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), "is etcd's, whose log") {
		t.Fatalf("%v: %s", err, out)
	}
	_, line, _ := strings.Cut(string(out), "kvctl snapshot restore ")
	file := strings.Fields(line)[0]
	to := replaced(ctx, t, "kvd", 1, by(ctx, t, "kvctl", file, "--skip-hash-check", "--bump-revision=0"))
	if err := from.Members[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := from.Ready(ctx); err != nil {
		t.Fatalf("etcd after the refusal: %v", err)
	}
	sameState(ctx, t, from, to, 50, 51, 200, rev)
}
