package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keelson-io/keelson/client"
)

// callersRow is what one process with many goroutines gets out of the store's own
// client: etcd's for etcd, ours for kvd, which lets calls share a stream.
func callersRow() Row {
	return Row{
		Name: "callers", Title: "put, 1,000 callers of one client: etcd's own, ours",
		Metrics: []Metric{
			{Name: "rate", Unit: "/s", Higher: true, Goal: 8, Floor: 4},
			{Name: "cpu", Unit: "µs/op", Goal: 6},
			{Name: "p50", Unit: "ms"}, {Name: "p99", Unit: "ms"},
		},
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			put, end, err := t.ownClient()
			if err != nil {
				return nil, err
			}
			defer end()
			return latencies(drive(ctx, 1000, d, t.cluster.CPU, func(ctx context.Context, _ int, rng *rand.Rand) error {
				return put(ctx, fmt.Sprintf("/bench/put/%06d", rng.IntN(100_000)), value(rng, valueSize))
			}))
		},
	}
}

// ownClient opens the client that belongs to the store.
func (t *target) ownClient() (put func(ctx context.Context, key string, value []byte) error, end func() error, err error) {
	if t.system.Name == "etcd" {
		c, err := clientv3.New(clientv3.Config{Endpoints: t.cluster.Endpoints(), DialTimeout: 5 * time.Second})
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, key string, value []byte) error {
			_, err := c.Put(ctx, key, string(value))
			return err
		}, c.Close, nil
	}
	c, err := client.New(client.Config{Endpoints: t.cluster.Endpoints()})
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, key string, value []byte) error {
		_, err := c.Put(ctx, key, value)
		return err
	}, c.Close, nil
}
