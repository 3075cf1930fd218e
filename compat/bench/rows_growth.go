package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What one operation costs the servers, at several sizes of a store.
const (
	growthKeys     = "growth-keys"
	growthWatchers = "growth-watchers"
)

// settling is how long a store has after its start before it is measured.
const settling = 5 * time.Second

// growthMetrics are the figures of things measured at sizes.
func growthMetrics(sizes []int, things ...string) (out []Metric) {
	for _, thing := range things {
		for _, n := range sizes {
			out = append(out, Metric{Name: thing + " " + strconv.Itoa(n), Unit: "µs"})
		}
	}
	return out
}

// growthKeysRow: puts and linearizable gets of random keys, one member.
func growthKeysRow() Row {
	sizes := []int{10_000, 100_000, 1_000_000}
	if BigKeys > sizes[len(sizes)-1] {
		sizes = append(sizes, BigKeys)
	}
	return Row{
		Name: growthKeys, Title: "100 clients put and get 256 B among more and more keys, one member: server CPU", Own: true, Apart: true,
		Metrics: growthMetrics(sizes, "put", "get"),
		Round: func(ctx context.Context, base *target, d time.Duration) (map[string]float64, error) {
			out := map[string]float64{}
			for _, n := range sizes {
				if err := keysAt(ctx, base, n, d, out); err != nil {
					return nil, fmt.Errorf("%d keys: %w", n, err)
				}
			}
			return out, nil
		},
	}
}

func keysAt(ctx context.Context, base *target, n int, d time.Duration, out map[string]float64) error {
	t, err := newBigTarget(ctx, base.system, filepath.Join(base.dir, fmt.Sprint("keys", n)), n)
	defer t.close()
	if err != nil {
		return err
	}
	time.Sleep(settling) // what a start leaves to the collector is not the puts'
	puts, err := putAmong(ctx, t, n, d)
	if err != nil {
		return err
	}
	gets, err := drive(ctx, 100, d, t.cluster.CPU, func(ctx context.Context, client int, rng *rand.Rand) error {
		_, err := pb.NewKVClient(t.conns[client]).Range(ctx, &pb.RangeRequest{Key: millionKey(rng.IntN(n))})
		return err
	})
	out[fmt.Sprint("put ", n)], out[fmt.Sprint("get ", n)] = puts.cpuMicros(), gets.cpuMicros()
	return err
}

// growthWatchersRow: 200 writers put keys that one watcher each watches, three members.
func growthWatchersRow() Row {
	sizes := []int{100, 1000, 10_000, 50_000}
	return Row{
		Name: growthWatchers, Title: "200 writers of keys with a watcher each, on 100 streams at most: server CPU of a write and its event", Own: true,
		Metrics: growthMetrics(sizes, "write"),
		Round: func(ctx context.Context, base *target, d time.Duration) (map[string]float64, error) {
			t, err := newTargetOf(ctx, base.system, filepath.Join(base.dir, "watched"), 3)
			defer t.close()
			if err != nil {
				return nil, err
			}
			out := map[string]float64{}
			for _, n := range sizes {
				o, err := watchEach(ctx, t, n, d)
				if err != nil {
					return nil, fmt.Errorf("%d watchers: %w", n, err)
				}
				out[fmt.Sprint("write ", n)] = o.cpuMicros()
			}
			return out, nil
		},
	}
}

// watchEach drives 200 writers of keys that have a watcher each, and waits for the
// last event.
func watchEach(ctx context.Context, t *target, watchers int, d time.Duration) (outcome, error) {
	const clients, streams = 200, 100
	key := func(i int) []byte { return fmt.Appendf(nil, "/bench/single/%05d", i) }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := t.watchers(ctx, watchers, min(watchers, streams), func(i int) ([]byte, []byte) { return key(i), nil })
	if err != nil {
		return outcome{}, err
	}
	var written atomic.Int64
	o, err := drive(ctx, clients, d, t.cluster.CPU, func(ctx context.Context, client int, rng *rand.Rand) error {
		_, err := pb.NewKVClient(t.conns[client%len(t.conns)]).Put(ctx, &pb.PutRequest{Key: key(rng.IntN(watchers)), Value: value(rng, valueSize)})
		written.Add(1)
		return err
	})
	if err != nil {
		return o, err
	}
	return o, await(events, written.Load())
}
