package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func (a *app) lockCommand() *cobra.Command {
	var ttl int64
	c := verb("lock NAME [-- COMMAND ARG…]", "Hold a lock until interrupted, or while a command runs",
		"  kvctl lock backup -- ./backup.sh", cobra.MinimumNArgs(1),
		func(ctx context.Context, args []string) error { return a.lock(ctx, args[0], args[1:], ttl) })
	c.Long = c.Short + `.

The command finds the lock's key in KVCTL_LOCK_KEY (ETCD_LOCK_KEY) and a fencing token in KVCTL_LOCK_REV (ETCD_LOCK_REV): the
revision at which the lock was asked for, larger for each later holder. Give the token to what the lock protects, and let it refuse
smaller ones: a lock alone cannot stop a holder that was paused for longer than its lease lives. If the lease is lost, the command
is killed. kvctl exits with the command's code.`
	c.Flags().Int64Var(&ttl, "ttl", 10, "after this many `seconds` without a sign of life the lock is free")
	return c
}

func (a *app) electCommand() *cobra.Command {
	var ttl int64
	var listen bool
	c := verb("elect NAME [PROPOSAL]", "Be a candidate for leadership, or watch who leads", "  kvctl elect scheduler node-1\n  kvctl elect scheduler --listen",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
			if listen {
				return a.leaders(ctx, args[0])
			}
			if len(args) < 2 {
				return usage("elect: a candidate needs a PROPOSAL; --listen watches")
			}
			return a.campaign(ctx, args[0], args[1], ttl)
		})
	c.Flags().BoolVarP(&listen, "listen", "l", false, "show each leader's proposal")
	c.Flags().Int64Var(&ttl, "ttl", 10, "after this many `seconds` without a sign of life another one leads")
	return c
}

// queue is a place in the line for a lock or for leadership: a key below the
// name, attached to a lease. The first in the order of creation has its turn;
// that is etcd's recipe, and its clients stand in the same line.
type queue struct {
	a      *app
	prefix string
	key    string
	rev    int64 // at which the key was made: the fencing token
	lease  int64
	cancel context.CancelFunc
	wait   sync.WaitGroup
	lost   error // why the lease ended; set before ctx ends
}

// enqueue takes a place. The returned context ends when the lease is lost.
func (a *app) enqueue(ctx context.Context, name, value string, ttl int64) (context.Context, *queue, error) {
	q := &queue{a: a, prefix: name + "/"}
	err := a.call(ctx, "grant a lease", false, func(ctx context.Context, r *remote) error {
		resp, err := r.lease().LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
		q.lease = resp.GetID()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	q.key = fmt.Sprintf("%s%x", q.prefix, q.lease)
	err = a.call(ctx, "stand in line for "+name, false, func(ctx context.Context, r *remote) error {
		resp, err := r.kv().Put(ctx, &pb.PutRequest{Key: []byte(q.key), Value: []byte(value), Lease: q.lease})
		q.rev = resp.GetHeader().GetRevision()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	held, cancel := context.WithCancel(ctx)
	q.cancel = cancel
	q.wait.Go(func() {
		holder := &app{world: a.world, global: a.global} // connections of its own
		defer holder.close()
		q.lost = holder.hold(held, q.lease, ttl, nil)
		cancel()
	})
	return held, q, nil
}

// leave gives the place up.
func (q *queue) leave() {
	q.cancel()
	q.wait.Wait()
	ctx := context.Background()
	_ = q.a.call(ctx, "give up the lock", false, func(ctx context.Context, r *remote) error {
		_, err := r.lease().LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: q.lease})
		return err
	})
}

// turn waits until nobody stands before this place.
func (q *queue) turn(ctx context.Context) error {
	for {
		before, err := q.a.newest(ctx, q.prefix, q.rev-1)
		if err != nil {
			return q.why(err)
		}
		if before == nil {
			return nil
		}
		gone := &pb.WatchCreateRequest{Key: before.Key, StartRevision: before.ModRevision + 1, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}
		quiet := &app{world: world{in: q.a.in, out: io.Discard, errs: io.Discard}, global: q.a.global}
		err = quiet.watch(ctx, gone, &watching{limit: 1})
		quiet.close()
		if err != nil {
			return q.why(err)
		}
	}
}

// why prefers the loss of the lease to what followed from it.
func (q *queue) why(err error) error {
	q.cancel()
	q.wait.Wait()
	if q.lost != nil {
		return q.lost
	}
	return err
}

// newest returns the key below prefix that was made last, at max or before.
func (a *app) newest(ctx context.Context, prefix string, maxRev int64) (kv *mvccpb.KeyValue, err error) {
	err = a.call(ctx, "look who stands in line", true, func(ctx context.Context, r *remote) error {
		resp, err := r.kv().Range(ctx, &pb.RangeRequest{
			Key: []byte(prefix), RangeEnd: prefixEnd([]byte(prefix)), Limit: 1, MaxCreateRevision: maxRev,
			SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_DESCEND,
		})
		if err == nil && len(resp.Kvs) > 0 {
			kv = resp.Kvs[0]
		}
		return err
	})
	return kv, err
}

func (a *app) lock(ctx context.Context, name string, command []string, ttl int64) error {
	held, q, err := a.enqueue(ctx, name, "", ttl)
	if err != nil {
		return err
	}
	defer q.leave()
	if err := q.turn(held); err != nil {
		return err
	}
	if len(command) == 0 {
		fmt.Fprintln(a.out, q.key)
		<-held.Done()
		return q.ended(ctx)
	}
	cmd := exec.CommandContext(held, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.errs
	cmd.Env = append(os.Environ(),
		"KVCTL_LOCK_KEY="+q.key, "ETCD_LOCK_KEY="+q.key, fmt.Sprintf("KVCTL_LOCK_REV=%d", q.rev), fmt.Sprintf("ETCD_LOCK_REV=%d", q.rev))
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case held.Err() != nil:
		return q.ended(ctx)
	case errors.As(err, &exit):
		return &failure{code: exit.ExitCode()}
	case err != nil:
		return fileFailed("run "+command[0], err)
	}
	return nil
}

// ended is the outcome when the place was lost, or given up.
func (q *queue) ended(ctx context.Context) error {
	q.wait.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return q.lost
}

func (a *app) campaign(ctx context.Context, name, proposal string, ttl int64) error {
	held, q, err := a.enqueue(ctx, name, proposal, ttl)
	if err != nil {
		return err
	}
	defer q.leave()
	if err := q.turn(held); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s\n%s\n", q.key, proposal)
	<-held.Done()
	return q.ended(ctx)
}

// leaders shows each leader until interrupted.
func (a *app) leaders(ctx context.Context, name string) error {
	prefix := name + "/"
	shown, shownAt := "", int64(0)
	for {
		var leader *mvccpb.KeyValue
		var rev int64
		err := a.call(ctx, "ask who leads "+name, true, func(ctx context.Context, r *remote) error {
			resp, err := r.kv().Range(ctx, &pb.RangeRequest{
				Key: []byte(prefix), RangeEnd: prefixEnd([]byte(prefix)), Limit: 1,
				SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND,
			})
			if err == nil {
				if rev = resp.Header.GetRevision(); len(resp.Kvs) > 0 {
					leader = resp.Kvs[0]
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		if leader != nil && (string(leader.Key) != shown || leader.ModRevision != shownAt) {
			shown, shownAt = string(leader.Key), leader.ModRevision
			a.pair(a.out, leader, false)
		}
		quiet := &app{world: world{in: a.in, out: io.Discard, errs: io.Discard}, global: a.global}
		err = quiet.watch(ctx, &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: prefixEnd([]byte(prefix)), StartRevision: rev + 1}, &watching{limit: 1})
		quiet.close()
		if err != nil {
			return err
		}
	}
}
