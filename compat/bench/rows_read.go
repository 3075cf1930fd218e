package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/compat/cluster"
)

// The listed objects: as many and as large as a well filled cluster's pods.
const (
	objects    = 10_000
	objectSize = 4096
	listPrefix = "/registry/objects/"
	listEnd    = "/registry/objects0"
)

func objectKey(i int) []byte { return fmt.Appendf(nil, "%sobject-%06d", listPrefix, i) }

// fillObjects writes the objects once a target.
func fillObjects(ctx context.Context, t *target) error {
	if t.state["objects"] != nil {
		return nil
	}
	t.state["objects"] = true
	const batch = 50
	return each(ctx, objects/batch, 8, func(ctx context.Context, n int) error {
		rng := rand.New(rand.NewPCG(uint64(n), 3))
		txn := &pb.TxnRequest{}
		for i := range batch {
			put := &pb.PutRequest{Key: objectKey(n*batch + i), Value: value(rng, objectSize)}
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		_, err := pb.NewKVClient(t.leader).Txn(ctx, txn)
		return err
	})
}

func getRow(serializable bool) Row {
	name, title := "get", "get, linearizable"
	if serializable {
		name, title = "get-serializable", "get, serializable"
	}
	return Row{
		Name: name, Title: title + ", 64 clients", Clients: 64,
		Metrics: []Metric{{Name: "cpu", Unit: "µs/op", Goal: 2}, rateMetric, {Name: "p50", Unit: "ms"}, {Name: "p99", Unit: "ms"}},
		Setup:   fillObjects,
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			return latencies(drive(ctx, 64, d, t.cluster.CPU, func(ctx context.Context, client int, rng *rand.Rand) error {
				req := &pb.RangeRequest{Key: objectKey(rng.IntN(objects)), Serializable: serializable}
				resp, err := pb.NewKVClient(t.conns[client%len(t.conns)]).Range(ctx, req)
				if err == nil && len(resp.Kvs) != 1 {
					return fmt.Errorf("%s is gone: %v", req.Key, resp)
				}
				return err
			}))
		},
	}
}

// listed opens a connection a client to one member, so that the memory of that
// member can be watched. It is a follower, as most members are: reads at the leader
// cost both stores other messages.
func listed(ctx context.Context, t *target, clients int) (*cluster.Member, []*grpc.ClientConn, error) {
	m, err := follower(ctx, t.cluster)
	if err != nil {
		return nil, nil, err
	}
	var conns []*grpc.ClientConn
	for range clients {
		conn, err := m.Dial()
		if err != nil {
			return nil, nil, err
		}
		conns = append(conns, conn)
	}
	return m, conns, nil
}

func closeAll(conns []*grpc.ClientConn) {
	for _, c := range conns {
		c.Close()
	}
}

var listRequest = encode(&pb.RangeRequest{Key: []byte(listPrefix), RangeEnd: []byte(listEnd)})

func list(ctx context.Context, conn *grpc.ClientConn) error {
	size, err := rawRange(ctx, conn, listRequest)
	if err == nil && size < objects*objectSize {
		return fmt.Errorf("a list of only %d bytes", size)
	}
	return err
}

func listRow() Row {
	return Row{
		Name: "list", Title: "list 10,000 × 4 KB unpaged, 4 clients",
		Metrics: []Metric{
			{Name: "cpu", Unit: "ms/op", Goal: 4.5, Floor: 3}, {Name: "memory", Unit: "MiB more", Goal: 8.5},
			rateMetric, {Name: "p50", Unit: "ms"},
		},
		Setup: fillObjects,
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			m, conns, err := listed(ctx, t, 4)
			if err != nil {
				return nil, err
			}
			defer closeAll(conns)
			before, err := m.Usage()
			if err != nil {
				return nil, err
			}
			if err := m.ResetPeak(); err != nil {
				return nil, err
			}
			out, err := latencies(drive(ctx, 4, d, t.cluster.CPU, func(ctx context.Context, client int, _ *rand.Rand) error {
				return list(ctx, conns[client])
			}))
			after, _ := m.Usage()
			out["cpu"] /= 1000
			out["memory"] = float64(after.Peak-before.RSS) / (1 << 20)
			return out, err
		},
	}
}

func pageRow() Row {
	return Row{
		Name: "page", Title: "page of 500 of 10,000 × 4 KB, 4 clients",
		Metrics: []Metric{{Name: "rate", Unit: "/s", Higher: true, Goal: 3}, {Name: "cpu", Unit: "µs/op", Floor: 1}, {Name: "p50", Unit: "ms"}},
		Setup:   fillObjects,
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			_, conns, err := listed(ctx, t, 4)
			if err != nil {
				return nil, err
			}
			defer closeAll(conns)
			return latencies(drive(ctx, 4, d, t.cluster.CPU, func(ctx context.Context, client int, rng *rand.Rand) error {
				from := objectKey(rng.IntN(objects/500) * 500)
				size, err := rawRange(ctx, conns[client], encode(&pb.RangeRequest{Key: from, RangeEnd: []byte(listEnd), Limit: 500}))
				if err == nil && size < 500*objectSize {
					return fmt.Errorf("a page of only %d bytes", size)
				}
				return err
			}))
		},
	}
}

func countRow() Row {
	return Row{
		Name: "count", Title: "count of 10,000 keys, 4 clients", Clients: 4,
		Metrics: []Metric{{Name: "rate", Unit: "/s", Higher: true, Goal: 8}, {Name: "cpu", Unit: "µs/op"}, {Name: "p50", Unit: "ms"}},
		Setup:   fillObjects,
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			_, conns, err := listed(ctx, t, 4)
			if err != nil {
				return nil, err
			}
			defer closeAll(conns)
			req := &pb.RangeRequest{Key: []byte(listPrefix), RangeEnd: []byte(listEnd), CountOnly: true}
			return latencies(drive(ctx, 4, d, t.cluster.CPU, func(ctx context.Context, client int, _ *rand.Rand) error {
				resp, err := pb.NewKVClient(conns[client]).Range(ctx, req)
				if err == nil && resp.Count != objects {
					return fmt.Errorf("%d objects, want %d", resp.Count, objects)
				}
				return err
			}))
		},
	}
}

// writersRow: ten writers, while two clients list everything all the time.
func writersRow() Row {
	return Row{
		Name: "writers", Title: "10 writers while 2 clients list 10,000 × 4 KB",
		Metrics: []Metric{{Name: "p99", Unit: "ms", Goal: 4.2}, {Name: "p50", Unit: "ms"}, rateMetric},
		Setup:   fillObjects,
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			_, conns, err := listed(ctx, t, 2)
			if err != nil {
				return nil, err
			}
			defer closeAll(conns)
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			listErr := make(chan error, 2)
			for _, conn := range conns {
				go func() { // ends with the context
					for {
						if err := list(ctx, conn); err != nil {
							listErr <- err
							return
						}
					}
				}()
			}
			out, err := latencies(drive(ctx, 10, d, t.cluster.CPU, t.put("writers")))
			select {
			case e := <-listErr:
				return out, fmt.Errorf("list beside the writers: %w", e)
			default:
				return out, err
			}
		},
	}
}
