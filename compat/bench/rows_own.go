package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/campaign"
	"github.com/keelson-io/keelson/compat/cluster"
)

// millionRow fills a single member with a million keys and restarts it.
func millionRow() Row {
	return Row{
		Name: "million", Title: "a million keys of 256 B, one member", Own: true,
		Metrics: []Metric{
			{Name: "memory", Unit: "MiB", Goal: 3}, {Name: "restarted", Unit: "MiB"},
			{Name: "restart", Unit: "s", Goal: 4.3}, {Name: "disk", Unit: "MiB"}, {Name: "load", Unit: "keys/s", Higher: true},
		},
		Round: func(ctx context.Context, t *target, _ time.Duration) (map[string]float64, error) {
			c, err := cluster.Start(ctx, t.system, cluster.Options{Members: 1, Dir: filepath.Join(t.dir, "million"), Args: flags})
			if err != nil {
				return nil, err
			}
			defer c.Close()
			m := c.Members[0]
			took, err := fillKeys(ctx, m, 1_000_000)
			if err != nil {
				return nil, err
			}
			// What a member needs once it has settled: the collector has run.
			time.Sleep(settling)
			filled, err := m.Usage()
			if err != nil {
				return nil, err
			}
			status, err := m.Status(ctx)
			if err != nil {
				return nil, err
			}
			restart, err := restart(ctx, m)
			if err != nil {
				return nil, err
			}
			time.Sleep(settling)
			again, err := m.Usage()
			return map[string]float64{
				"memory": float64(filled.Anon) / (1 << 20), "restarted": float64(again.Anon) / (1 << 20),
				"restart": restart.Seconds(), "disk": float64(status.DbSize) / (1 << 20), "load": 1e6 / took.Seconds(),
			}, err
		},
	}
}

func millionKey(i int) []byte { return fmt.Appendf(nil, "/registry/million/%08d", i) }

// fillKeys writes so many keys, and returns how long that took.
func fillKeys(ctx context.Context, m *cluster.Member, keys int) (time.Duration, error) {
	conn, err := m.Dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	const batch = 100
	began := time.Now()
	err = each(ctx, keys/batch, 16, func(ctx context.Context, n int) error {
		rng := rand.New(rand.NewPCG(uint64(n), 5))
		txn := &pb.TxnRequest{}
		for i := range batch {
			put := &pb.PutRequest{Key: millionKey(n*batch + i), Value: value(rng, valueSize)}
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		_, err := pb.NewKVClient(conn).Txn(ctx, txn)
		return err
	})
	return time.Since(began), err
}

// restart stops a member cleanly and measures from its start to the first
// linearizable read.
func restart(ctx context.Context, m *cluster.Member) (time.Duration, error) {
	if err := m.Stop(30 * time.Second); err != nil {
		return 0, err
	}
	return start(ctx, m)
}

// start measures from the start of a member to its first linearizable read.
func start(ctx context.Context, m *cluster.Member) (time.Duration, error) {
	began := time.Now()
	if err := m.Start(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := m.Ready(ctx)
	return time.Since(began), err
}

// failoverRow kills leaders of a cluster without other load.
func failoverRow() Row {
	const kills = 5
	return Row{
		Name: "leader-kill", Title: "leader killed → first acknowledged write elsewhere, 5 kills", Own: true,
		Metrics: []Metric{{Name: "median", Unit: "s", Goal: 4.7}, {Name: "max", Unit: "s"}},
		Round: func(ctx context.Context, t *target, _ time.Duration) (map[string]float64, error) {
			c, err := cluster.Start(ctx, t.system, cluster.Options{Members: 3, Dir: filepath.Join(t.dir, "failover"), Args: flags})
			if err != nil {
				return nil, err
			}
			defer c.Close()
			list, err := campaign.MeasureFailover(ctx, c, kills)
			if err != nil {
				return nil, err
			}
			var times []float64
			for _, k := range list {
				times = append(times, k.FirstAck.Seconds())
			}
			slices.Sort(times)
			return map[string]float64{"median": times[len(times)/2], "max": times[len(times)-1]}, nil
		},
	}
}
