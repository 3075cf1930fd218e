package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/compat/cluster"
)

// flat is work of the store's own, or of another client's, that writers should not
// feel: their p99 is measured before it and during it.
type flat struct {
	name, title string
	members     int
	prepare     func(ctx context.Context, t *target) error
	disturb     func(ctx context.Context, t *target, d time.Duration) error
}

func flatRow(f flat) Row {
	const writers = 10
	return Row{
		Name: f.name, Title: f.title, Own: true,
		Metrics: []Metric{
			{Name: "quiet", Unit: "ms p99"}, {Name: "during", Unit: "ms p99"}, {Name: "ratio", Unit: "×"},
			{Name: "longest", Unit: "ms"}, {Name: "lists", Unit: "/s", Higher: true}, {Name: "failed", Unit: "puts"}, {Name: "took", Unit: "s"}, {Name: "before", Unit: "MiB"}, {Name: "after", Unit: "MiB"},
		},
		Round: func(ctx context.Context, base *target, d time.Duration) (map[string]float64, error) {
			t, err := newTargetOf(ctx, base.system, filepath.Join(base.dir, f.name), f.members)
			defer t.close()
			if err != nil {
				return nil, err
			}
			if err := f.prepare(ctx, t); err != nil {
				return nil, fmt.Errorf("prepare: %w", err)
			}
			leader, err := t.cluster.Leader(ctx)
			if err != nil {
				return nil, err
			}
			before, err := leader.Status(ctx)
			if err != nil {
				return nil, err
			}
			put := (&target{conns: []*grpc.ClientConn{t.leader}}).put(f.name)
			quiet, err := drive(ctx, writers, d, t.cluster.CPU, put)
			if err != nil {
				return nil, err
			}
			during, failed, err := driveDuring(ctx, writers, put, func(ctx context.Context) error { return f.disturb(ctx, t, d) })
			if err != nil {
				return nil, err
			}
			after, err := leader.Status(ctx)
			lists, _ := t.state["lists"].(float64)
			return map[string]float64{
				"quiet": quiet.quantile(0.99), "during": during.quantile(0.99), "ratio": during.quantile(0.99) / quiet.quantile(0.99),
				"longest": during.quantile(1), "lists": lists, "failed": float64(failed), "took": during.took.Seconds(),
				"before": float64(before.DbSize) / (1 << 20), "after": float64(after.GetDbSize()) / (1 << 20),
			}, err
		},
	}
}

func flatListRow() Row {
	return flatRow(flat{
		name: "flat-list", title: "10 writers while one client lists 10,000 × 4 KB again and again", members: 3,
		prepare: fillObjects,
		disturb: func(ctx context.Context, t *target, d time.Duration) error {
			// At the member that also has the writers: it is what they feel most, and the
			// one place where a store can know.
			leader, err := t.cluster.Leader(ctx)
			if err != nil {
				return err
			}
			noise, err := runNoise(string(noiseList), leader.Endpoint)
			if err != nil {
				return err
			}
			time.Sleep(d)
			t.state["lists"], err = noise.stop()
			return err
		},
	})
}

// overwrite makes revisions: transactions of some keys each, again and again.
func overwrite(ctx context.Context, conn *grpc.ClientConn, txns, batch, keys, size int) error {
	return each(ctx, txns, 8, func(ctx context.Context, n int) error {
		rng := rand.New(rand.NewPCG(uint64(n), 7))
		txn := &pb.TxnRequest{}
		for i := range batch {
			put := &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/overwritten/%07d", (n*batch+i)%keys), Value: value(rng, size)}
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		_, err := pb.NewKVClient(conn).Txn(ctx, txn)
		return err
	})
}

// tidyUp is how long a store is watched after a compaction has ended: it may rewrite
// its file then.
const tidyUp = 3 * time.Second

// flatCompactRow: a million records are given up; it lasts until the leader has
// deleted them, and has had time to tidy up.
func flatCompactRow() Row {
	const txns, batch, keys = 10_000, 100, 10_000
	return flatRow(flat{
		name: "flat-compact", title: "10 writers while a million revisions are compacted", members: 3,
		prepare: func(ctx context.Context, t *target) error {
			return overwrite(ctx, t.leader, txns, batch, keys, valueSize)
		},
		disturb: func(ctx context.Context, t *target, _ time.Duration) error {
			err := compactAll(ctx, t, txns*batch-keys)
			time.Sleep(tidyUp)
			return err
		},
	})
}

// compactAll gives up all history and waits until the leader has deleted so many records.
func compactAll(ctx context.Context, t *target, records float64) error {
	kv := pb.NewKVClient(t.leader)
	now, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("/"), CountOnly: true})
	if err != nil {
		return err
	}
	if _, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true}); err != nil {
		return err
	}
	leader, err := t.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	return until(ctx, func() bool {
		deleted, err := counter(leader, "etcd_debugging_mvcc_db_compaction_keys_total")
		return err == nil && deleted >= records
	})
}

// until waits for a condition.
func until(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// counter reads one of a member's metrics.
func counter(m *cluster.Member, name string) (float64, error) {
	resp, err := http.Get(m.ClientURL() + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", m.Name, name)
}

// missedBytes is more than what a leader keeps of its log for slow followers.
const missedBytes = 256 << 20

// flatSnapshotRow: a follower that missed more than the log has comes back.
func flatSnapshotRow() Row {
	return flatRow(flat{
		name: "flat-snapshot", title: "10 writers while a follower catches up by a snapshot", members: 3,
		prepare: leaveBehind,
		disturb: func(ctx context.Context, t *target, _ time.Duration) error { return catchUp(ctx, t) },
	})
}

// leaveBehind stops a follower and writes more than the log has for it.
func leaveBehind(ctx context.Context, t *target) error {
	behind, err := follower(ctx, t.cluster)
	if err != nil {
		return err
	}
	t.state["behind"] = behind
	if err := behind.Stop(30 * time.Second); err != nil {
		return err
	}
	const batch, size = 60, 16 << 10
	return overwrite(ctx, t.leader, missedBytes/batch/size, batch, 1000*batch, size)
}

// catchUp starts the follower that was left behind and waits until it has what the
// leader has now.
func catchUp(ctx context.Context, t *target) error {
	behind := t.state["behind"].(*cluster.Member)
	leader, err := t.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	goal, err := leader.Status(ctx)
	if err != nil {
		return err
	}
	if err := behind.Start(); err != nil {
		return err
	}
	return until(ctx, func() bool {
		at, err := behind.Status(ctx)
		return err == nil && at.RaftAppliedIndex >= goal.RaftAppliedIndex
	})
}

func follower(ctx context.Context, c *cluster.Cluster) (*cluster.Member, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range c.Members {
		if m != leader {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s has no follower", c.System.Name)
}
