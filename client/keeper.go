package client

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// keeper renews leases over one stream.
//
// A lease counts as lost when the cluster says so, or when its time is up by
// this process's clock, counted from when the last renewal that was answered
// was *sent*: never later than the cluster's own count.
type keeper struct {
	core *core
	kick chan struct{} // tells the sender that a lease was added

	mu struct {
		sync.Mutex
		leases  map[LeaseID]*kept
		running bool
	}
}

// kept is a lease that is renewed. Its fields are guarded by the keeper's lock.
type kept struct {
	id     LeaseID
	ttl    time.Duration
	due    time.Time // for the next renewal
	sent   time.Time // of the renewal that was not answered yet; zero: none
	timer  *time.Timer
	report func(error) // called once, when the lease is lost
}

// keep renews a lease that was granted, by a request sent at the given time,
// until stop is called or the lease is lost.
func (k *keeper) keep(l Lease, sent time.Time, report func(error)) (stop func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.leases == nil {
		k.mu.leases = map[LeaseID]*kept{}
	}
	one := &kept{id: l.ID, ttl: l.Granted, due: sent.Add(l.Granted / 3), report: report}
	if !k.mu.running {
		if !k.core.spawn(k.run) {
			return nil, ErrClosed
		}
		k.mu.running = true
	}
	k.mu.leases[l.ID] = one
	one.timer = time.AfterFunc(time.Until(sent.Add(l.Granted)), func() { k.lose(one, ErrLeaseLost) })
	k.wake()
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.forgetLocked(one)
	}, nil
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// forgetLocked reports whether the lease was still kept.
func (k *keeper) forgetLocked(one *kept) bool {
	if k.mu.leases[one.id] != one {
		return false
	}
	one.timer.Stop()
	delete(k.mu.leases, one.id)
	return true
}

func (k *keeper) lose(one *kept, why error) {
	k.mu.Lock()
	was := k.forgetLocked(one)
	k.mu.Unlock()
	if was {
		k.core.notice(NoticeLeaseLost, "", why)
		one.report(why)
	}
}

// run keeps a stream open until the client is closed.
func (k *keeper) run() {
	for {
		t := trial{core: k.core, request: requestOf(pb.Lease_LeaseKeepAlive_FullMethodName, nil)}
		t.keep(k.core.ctx, k.serve)
		// After a refusal the leases may still be renewed, when rights are back in time.
		if k.core.sleep(k.core.ctx, lastPause) != nil {
			break
		}
	}
	k.mu.Lock()
	var all []*kept
	for _, one := range k.mu.leases {
		all = append(all, one)
	}
	k.mu.Unlock()
	for _, one := range all {
		k.lose(one, ErrClosed)
	}
}

// serve runs one connection.
func (k *keeper) serve(ctx context.Context, conn *grpc.ClientConn, alive func()) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	if err != nil {
		cancel()
		return err
	}
	k.mu.Lock()
	for _, one := range k.mu.leases {
		one.sent, one.due = time.Time{}, time.Time{} // what was on its way is lost
	}
	k.mu.Unlock()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { k.send(ctx, stream) })
	for answered := false; ; {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if !answered {
			answered = true
			alive()
		}
		k.renewed(r)
	}
}

// keepPeriod is how often the sender looks for leases that are due.
const keepPeriod = 100 * time.Millisecond

func (k *keeper) send(ctx context.Context, stream pb.Lease_LeaseKeepAliveClient) {
	ticker := time.NewTicker(keepPeriod)
	defer ticker.Stop()
	for {
		for _, id := range k.takeDue(time.Now()) {
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}) != nil {
				return // Recv says why
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.kick:
		}
	}
}

// takeDue notes that the leases that are due are renewed now.
func (k *keeper) takeDue(now time.Time) (due []LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, one := range k.mu.leases {
		if one.sent.IsZero() && !one.due.After(now) {
			one.sent = now
			due = append(due, id)
		}
	}
	return due
}

// renewed takes an answer.
func (k *keeper) renewed(r *pb.LeaseKeepAliveResponse) {
	k.mu.Lock()
	one := k.mu.leases[LeaseID(r.ID)]
	if one == nil || one.sent.IsZero() {
		k.mu.Unlock()
		return
	}
	if r.TTL > 0 {
		one.ttl = time.Duration(r.TTL) * time.Second
		one.due = one.sent.Add(one.ttl / 3)
		one.timer.Reset(time.Until(one.sent.Add(one.ttl)))
		one.sent = time.Time{}
	}
	k.mu.Unlock()
	if r.TTL <= 0 {
		k.lose(one, ErrLeaseLost)
	}
}
