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

// The rows of overload: one client with one connection (the victim) works at the
// leader in a closed loop, first alone and then beside another client, a process
// of its own (noise.go), that lists or writes there without end. What counts is
// how many times its quiet p99 the victim's p99 becomes.

func overloadRow(kind noiseKind, title string) Row {
	metrics := []Metric{}
	for _, op := range []string{"put", "get"} {
		metrics = append(metrics, Metric{Name: op + "-quiet", Unit: "ms p99"}, Metric{Name: op + "-beside", Unit: "ms p99"},
			Metric{Name: op + "-ratio", Unit: "×"})
	}
	return Row{
		Name: "overload-" + string(kind), Title: "a quiet client's p99 beside " + title,
		Metrics: append(metrics, Metric{Name: "noise", Unit: "/s", Higher: true}),
		Setup:   fillObjects,
		Round: func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error) {
			m, err := t.cluster.Leader(ctx)
			if err != nil {
				return nil, err
			}
			victim, err := m.Dial()
			if err != nil {
				return nil, err
			}
			defer victim.Close()
			out := map[string]float64{}
			if err := measureVictim(ctx, t, victim, d, out, "quiet"); err != nil {
				return out, err
			}
			noise, err := startNoise(kind, m)
			if err != nil {
				return out, err
			}
			err = measureVictim(ctx, t, victim, d, out, "beside")
			rate, noiseErr := noise.stop()
			if err == nil {
				err = noiseErr
			}
			out["noise"] = rate
			for _, op := range []string{"put", "get"} {
				out[op+"-ratio"] = out[op+"-beside"] / out[op+"-quiet"]
			}
			return out, err
		},
	}
}

// measureVictim writes, then reads, for d each.
func measureVictim(ctx context.Context, t *target, conn *grpc.ClientConn, d time.Duration, out map[string]float64, when string) error {
	kv := pb.NewKVClient(conn)
	for name, op := range map[string]call{
		"put": func(ctx context.Context, _ int, rng *rand.Rand) error {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "/bench/victim/%03d", rng.IntN(1000)), Value: value(rng, valueSize)})
			return err
		},
		"get": func(ctx context.Context, _ int, rng *rand.Rand) error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: objectKey(rng.IntN(objects))})
			return err
		},
	} {
		o, err := drive(ctx, 1, d, t.cluster.CPU, op)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", name, when, err)
		}
		out[name+"-"+when] = o.quantile(0.99)
	}
	return nil
}

// startNoise starts the other client: this program once more.
func startNoise(kind noiseKind, m *cluster.Member) (*noiseProcess, error) {
	return runNoise(string(kind), m.Endpoint)
}
