package maintenance

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Millisecond):
	}
}

// TestSnapshotForEtcd saves a snapshot of kvd with etcdctl, has etcdutl verify
// and restore it, and starts etcd on the result: keys, revisions, leases and
// history are there.
func TestSnapshotForEtcd(t *testing.T) {
	ctx := limited(t)
	from := start(ctx, t, "kvd", cluster.Options{NoSync: true})
	if _, err := pb.NewLeaseClient(from.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 55, TTL: 3600}); err != nil {
		t.Fatal(err)
	}
	var rev int64
	for i := range 300 {
		rev = put(ctx, t, from, fmt.Sprintf("k%03d", i%100), fmt.Sprint("value ", i))
	}
	if _, err := from.kv.Put(ctx, &pb.PutRequest{Key: []byte("leased"), Lease: 55}); err != nil {
		t.Fatal(err)
	}
	if _, err := from.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k001")}); err != nil {
		t.Fatal(err)
	}
	rev += 2
	if _, err := from.kv.Compact(ctx, &pb.CompactionRequest{Revision: 50}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot.db")
	tool(ctx, t, "etcdctl", "--endpoints", from.Members[0].Endpoint, "snapshot", "save", file)

	var report struct {
		Revision int64  `json:"revision"`
		TotalKey int    `json:"totalKey"`
		Version  string `json:"version"`
	}
	if err := json.Unmarshal([]byte(tool(ctx, t, "etcdutl", "snapshot", "status", file, "-w", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.Revision != rev || report.Version != "3.7.0" || report.TotalKey == 0 {
		t.Errorf("status: %+v, want revision %d", report, rev)
	}
	m := restored(ctx, t, dir, file)
	resp, err := m.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Revision != rev || resp.Count != 100 { // 100 keys, one deleted, one leased
		t.Errorf("%d keys at revision %d, want 100 at %d", resp.Count, resp.Header.Revision, rev)
	}
	want, err := from.admin.HashKV(ctx, &pb.HashKVRequest{Revision: rev})
	if err != nil {
		t.Fatal(err)
	}
	// etcd hashes our records with the field that it skips when it reads them, so
	// the hashes differ; what it serves does not.
	for _, at := range []int64{51, 200, rev} {
		a, errA := from.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: at})
		b, errB := m.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: at})
		if verdict(errA) != verdict(errB) || texts(a.GetKvs()) != texts(b.GetKvs()) {
			t.Errorf("at %d: %s\n%s\nand %s\n%s", at, verdict(errA), texts(a.GetKvs()), verdict(errB), texts(b.GetKvs()))
		}
	}
	lease, err := pb.NewLeaseClient(m.conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 55, Keys: true})
	if err != nil || lease.GrantedTTL != 3600 || len(lease.Keys) != 1 {
		t.Errorf("lease: %v, %v", lease, err)
	}
	if want.CompactRevision != 50 {
		t.Errorf("compacted at %d", want.CompactRevision)
	}
}

// texts prints the fields that etcd knows. It passes the one it does not know,
// the checksum of a record, on to its clients, who skip it.
func texts(kvs []*mvccpb.KeyValue) string {
	var b strings.Builder
	for _, kv := range kvs {
		fmt.Fprintf(&b, "%q %d %d %d %q %d\n", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Value, kv.Lease)
	}
	return b.String()
}

// restored has etcdutl restore a snapshot and starts etcd on it.
func restored(ctx context.Context, t *testing.T, dir, file string) *side {
	t.Helper()
	sys, err := cluster.Lookup("etcd")
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(ctx, sys, cluster.Options{NoSync: true, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m := c.Members[0]
	m.Kill()
	if err := os.RemoveAll(m.DataDir()); err != nil {
		t.Fatal(err)
	}
	tool(ctx, t, "etcdutl", "snapshot", "restore", file, "--data-dir", m.DataDir(), "--name", m.Name,
		"--initial-cluster", m.Name+"="+m.PeerURL, "--initial-advertise-peer-urls", m.PeerURL, "--initial-cluster-token", "compat")
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	if err := m.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return dial(t, c)
}
