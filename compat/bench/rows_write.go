package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const valueSize = 256

// value is not compressible and differs each time.
func value(rng *rand.Rand, size int) []byte {
	v := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(v[i:], rng.Uint64())
	}
	return v
}

var rateMetric = Metric{Name: "rate", Unit: "/s", Higher: true}

func putRow() Row {
	return Row{
		Name: "put", Title: "put, 1,000 clients on 100 connections", Clients: 1000,
		Metrics: []Metric{
			{Name: "rate", Unit: "/s", Higher: true, Goal: 2.2, Floor: 1.5},
			{Name: "cpu", Unit: "µs/op", Goal: 2.9},
			{Name: "p50", Unit: "ms"}, {Name: "p99", Unit: "ms"},
		},
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			return latencies(drive(ctx, 1000, d, t.cluster.CPU, t.put("put")))
		},
	}
}

// put writes a random one of 100,000 keys.
func (t *target) put(prefix string) call {
	return func(ctx context.Context, client int, rng *rand.Rand) error {
		key := fmt.Appendf(nil, "/bench/%s/%06d", prefix, rng.IntN(100_000))
		_, err := pb.NewKVClient(t.conns[client%len(t.conns)]).Put(ctx, &pb.PutRequest{Key: key, Value: value(rng, valueSize)})
		return err
	}
}

func latencies(o outcome, err error) (map[string]float64, error) {
	return map[string]float64{"rate": o.rate(), "cpu": o.cpuMicros(), "p50": o.quantile(0.5), "p99": o.quantile(0.99)}, err
}

func putOneRow() Row {
	return Row{
		Name: "put-one", Title: "put, one client at the leader", Clients: 1,
		Metrics: []Metric{
			{Name: "rate", Unit: "/s", Higher: true, Goal: 2, Floor: 1.5},
			{Name: "p50", Unit: "ms", Goal: 1.8}, {Name: "p99", Unit: "ms"},
		},
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			return latencies(drive(ctx, 1, d, t.cluster.CPU, func(ctx context.Context, _ int, rng *rand.Rand) error {
				key := fmt.Appendf(nil, "/bench/one/%06d", rng.IntN(1000))
				_, err := pb.NewKVClient(t.leader).Put(ctx, &pb.PutRequest{Key: key, Value: value(rng, valueSize)})
				return err
			}))
		},
	}
}

// casRow: each client updates its own object the way kube-apiserver does.
func casRow() Row {
	const clients = 500
	return Row{
		Name: "cas", Title: "Kubernetes-shaped CAS transaction, 1 KB, 500 clients", Clients: clients,
		Metrics: []Metric{
			{Name: "rate", Unit: "/s", Higher: true, Goal: 2.2, Floor: 1.5},
			{Name: "cpu", Unit: "µs/op", Goal: 2.9},
			{Name: "p50", Unit: "ms"}, {Name: "p99", Unit: "ms"},
		},
		Setup: func(ctx context.Context, t *target) error {
			t.state["cas"] = make([]int64, clients)
			return nil
		},
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			revisions := t.state["cas"].([]int64)
			return latencies(drive(ctx, clients, d, t.cluster.CPU, func(ctx context.Context, client int, rng *rand.Rand) error {
				return t.cas(ctx, client, rng, &revisions[client])
			}))
		},
	}
}

func (t *target) cas(ctx context.Context, client int, rng *rand.Rand, revision *int64) error {
	key := fmt.Appendf(nil, "/registry/pods/default/pod-%04d", client)
	resp, err := pb.NewKVClient(t.conns[client%len(t.conns)]).Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: *revision}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value(rng, 1024)}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	})
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return fmt.Errorf("nobody else writes %s, yet revision %d did not hold: %v", key, *revision, resp)
	}
	*revision = resp.Header.Revision
	return nil
}
