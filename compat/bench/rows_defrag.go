package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// defragRow: a store of 2 GB, two fifths of it free, is rewritten while clients
// write.
func defragRow() Row {
	return flatRow(flat{
		name: "defragment", title: "10 writers while a store of 2 GB is defragmented, one member", members: 1,
		prepare: func(ctx context.Context, t *target) error { return fillWithGaps(ctx, t.leader) },
		disturb: func(ctx context.Context, t *target, _ time.Duration) error {
			_, err := pb.NewMaintenanceClient(t.leader).Defragment(ctx, &pb.DefragmentRequest{})
			return err
		},
	})
}

// fillWithGaps writes 2 GB of keys and deletes two of five batches: less than what
// makes kvd rewrite its file by itself.
func fillWithGaps(ctx context.Context, conn *grpc.ClientConn) error {
	const (
		size    = 16 << 10
		batch   = 60 // just below what a request may have
		batches = (2 << 30) / (size * batch)
	)
	kv := pb.NewKVClient(conn)
	key := func(n, i int) []byte { return fmt.Appendf(nil, "/registry/defragment/%05d/%03d", n, i) }
	err := each(ctx, batches, 4, func(ctx context.Context, n int) error {
		rng := rand.New(rand.NewPCG(uint64(n), 17))
		txn := &pb.TxnRequest{}
		for i := range batch {
			put := &pb.PutRequest{Key: key(n, i), Value: value(rng, size)}
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		}
		_, err := kv.Txn(ctx, txn)
		return err
	})
	if err != nil {
		return err
	}
	var last int64
	for n := range batches {
		if n%5 > 1 {
			continue
		}
		resp, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key(n, 0), RangeEnd: key(n+1, 0)})
		if err != nil {
			return err
		}
		last = resp.Header.Revision
	}
	_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: last, Physical: true})
	return err
}

// driveDuring runs clients in closed loops for as long as f takes. Every call
// counts that began meanwhile, also one that failed: a store may refuse to wait.
func driveDuring(ctx context.Context, clients int, call call, f func(context.Context) error) (o outcome, failed int, err error) {
	over := make(chan struct{})
	all, failures := make([][]time.Duration, clients), make([]int, clients)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 19))
			for {
				select {
				case <-over:
					return
				default:
				}
				start := time.Now()
				if call(ctx, i, rng) != nil {
					failures[i]++
				}
				all[i] = append(all[i], time.Since(start))
			}
		})
	}
	err = f(ctx)
	o.took = time.Since(began)
	close(over)
	wg.Wait()
	for _, n := range failures {
		failed += n
	}
	o.latencies = slices.Concat(all...)
	slices.Sort(o.latencies)
	return o, failed, err
}
