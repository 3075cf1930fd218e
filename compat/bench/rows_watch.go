package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/time/rate"
)

// watchers opens watches spread over streams, one a connection, and counts the
// events they get. key gives the range of watcher i.
func (t *target) watchers(ctx context.Context, n, streams int, key func(i int) (key, end []byte)) (*atomic.Int64, error) {
	events := &atomic.Int64{}
	created := make(chan error, n)
	for s := range streams {
		stream, err := pb.NewWatchClient(t.conns[s%len(t.conns)]).Watch(ctx)
		if err != nil {
			return nil, err
		}
		go func() { // ends with the context
			for {
				resp, err := stream.Recv()
				switch {
				case err != nil:
					created <- err
					return
				case resp.Canceled:
					created <- fmt.Errorf("a watch was canceled: %v", resp)
					return
				case resp.Created:
					created <- nil
				}
				events.Add(int64(len(resp.Events)))
			}
		}()
		for i := s; i < n; i += streams {
			req := &pb.WatchCreateRequest{}
			req.Key, req.RangeEnd = key(i)
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
				return nil, err
			}
		}
	}
	for range n {
		if err := <-created; err != nil {
			return nil, err
		}
	}
	return events, nil
}

// paced drives writers at a fixed rate, so that both stores do the same work, and
// waits for the last event. It gives the CPU of the servers, the writes and the events.
func (t *target) paced(ctx context.Context, d time.Duration, perSecond float64, events *atomic.Int64, fan int64, f call) (cpu time.Duration, writes int64, err error) {
	limiter := rate.NewLimiter(rate.Limit(perSecond), 1)
	events.Store(0)
	before := t.cluster.CPU()
	deadline := time.Now().Add(d)
	var written atomic.Int64
	err = each(ctx, 8, 8, func(ctx context.Context, client int) error {
		rng := rand.New(rand.NewPCG(uint64(client), 9))
		for time.Now().Before(deadline) {
			if err := limiter.Wait(ctx); err != nil {
				return err
			}
			if err := f(ctx, client, rng); err != nil {
				return err
			}
			written.Add(1)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	writes = written.Load()
	err = await(events, writes*fan)
	return t.cluster.CPU() - before, writes, err
}

// await waits until the watchers have got all events.
func await(events *atomic.Int64, want int64) error {
	for late := time.Now().Add(10 * time.Second); events.Load() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			return fmt.Errorf("%d of %d events arrived", events.Load(), want)
		}
	}
	return nil
}

func watchPrefixRow() Row {
	const watchers, prefix = 1000, "/bench/watched/"
	return Row{
		Name: "watch-prefix", Title: "1,000 watchers of one prefix, 10 streams, 200 writes/s",
		Metrics: []Metric{{Name: "cpu", Unit: "µs/event", Goal: 3.8}, {Name: "writes", Unit: "/s", Higher: true}},
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			events, err := t.watchers(ctx, watchers, 10, func(int) (key, end []byte) {
				return []byte(prefix), []byte("/bench/watched0")
			})
			if err != nil {
				return nil, err
			}
			cpu, writes, err := t.paced(ctx, d, 200, events, watchers, func(ctx context.Context, _ int, rng *rand.Rand) error {
				_, err := pb.NewKVClient(t.leader).Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "%s%d", prefix, rng.IntN(1000)), Value: value(rng, valueSize)})
				return err
			})
			return map[string]float64{"cpu": float64(cpu.Microseconds()) / float64(max(1, writes*watchers)), "writes": float64(writes) / d.Seconds()}, err
		},
	}
}

func watchKeysRow() Row {
	return Row{
		Name: "watch-keys", Title: "10,000 watchers of a key each on 100 streams, 200 writers",
		Metrics: []Metric{{Name: "cpu", Unit: "µs/write", Goal: 2.9}, rateMetric, {Name: "p50", Unit: "ms"}},
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			return latencies(watchEach(ctx, t, 10_000, d))
		},
	}
}
