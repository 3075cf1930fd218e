//go:build linux

package real

import (
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

var leaseFaults = []*Fault{
	{Name: "expiry-across-leaders", Row: 46, About: "200 leases are due at once, some renewed at the last moment, while the leader goes", Inject: expiryAcrossLeaders},
	{Name: "holder-paused", Row: 52, About: "who holds a lock sleeps beyond its lease, and writes as if nothing had happened", Times: 5, Inject: holderPaused},
}

// grant makes a lease under an id that nobody else uses.
func (w *caller) grant(seconds int64) (id int64, ok bool) {
	w.tags++
	id = int64(w.n+1)<<32 | int64(w.tags)
	return id, w.do("etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: id, TTL: seconds}).Outcome == history.OK
}

func (w *caller) renew(id int64) *history.Op {
	return w.do("etcdserverpb.Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: id})
}

const (
	dueLeases  = 200
	dueSeconds = 3 // of each lease
)

// expiryAcrossLeaders: when leases end O7 judges. Here all must have ended in time,
// though the leader that was to end them may be gone: a new one gives each its whole
// length once more.
func expiryAcrossLeaders(r *Run) error {
	var ids []int64
	begin := r.now()
	for range dueLeases {
		id, ok := r.mine.grant(dueSeconds)
		if ok {
			ids = append(ids, id)
			r.mine.do("etcdserverpb.KV/Put", &pb.PutRequest{Key: fmt.Appendf(nil, "leased/%d", id%100), Value: r.mine.tag(0), Lease: id})
		}
	}
	if len(ids) < dueLeases/2 {
		return fmt.Errorf("%w: %d leases", errNothing, len(ids))
	}
	time.Sleep(max(0, begin+dueSeconds*time.Second-300*time.Millisecond-r.now()))
	for i := 0; i < len(ids); i += 20 {
		r.mine.renew(ids[i]) // in time or not, the answer says
	}
	lead, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	switch r.rand.IntN(3) {
	case 0:
		err = lead.kill("kill")
	case 1:
		err = lead.stop()
	case 2:
		err = r.paused(3*r.Election, lead)
	}
	if err != nil {
		return err
	}
	last := r.now()
	err = within(patience, func() error {
		all, err := r.mine.leases()
		if err != nil {
			return err
		}
		for _, id := range ids {
			if all[id] {
				return fmt.Errorf("O7: lease %d lives on", id)
			}
		}
		return nil
	})
	took := r.now() - last
	if limit := dueSeconds*time.Second + 2*r.Election + time.Second + expiryGrace; err == nil && took > limit {
		err = fmt.Errorf("O7: leases ended %v after their leader had gone, %v is the most", took, limit)
	}
	if err == nil {
		r.result.Measures = append(r.result.Measures, Measure{"leases of 3s gone, after their leader", took})
	}
	return err
}

// expiryGrace is for an election on a busy machine.
const expiryGrace = 10 * time.Second

// holderPaused: the lock's lease ends while its holder sleeps, through a change of
// the leader or not, another one takes the lock and writes, and what the first one
// writes then must be refused.
func holderPaused(r *Run) error {
	lock := fmt.Sprint("lock/of-the-nemesis/", r.rand.IntN(3))
	old, err := r.takeLock(lock)
	if err != nil {
		return err
	}
	if !r.fenced(lock, old) {
		return fmt.Errorf("%w: the lock was lost before the holder slept", errNothing)
	}
	if r.rand.IntN(2) == 0 {
		lead, err := r.awaitLeader(patience)
		if err == nil {
			err = r.paused(3*r.Election, lead)
		}
		if err != nil {
			return err
		}
	}
	young, err := r.takeLock(lock)
	if err != nil {
		return fmt.Errorf("O7: a lock whose holder sleeps is not free: %w", err)
	}
	switch {
	case young <= old:
		return fmt.Errorf("O7: the token %d of %s comes after %d", young, lock, old)
	case r.fenced(lock, old):
		return fmt.Errorf("O7: %s was written under the token %d, after %d was given", lock, old, young)
	}
	r.fenced(lock, young)
	return nil
}

// takeLock waits for a lock and takes it with a lease that nobody renews. The token
// is the revision that made the lock.
func (r *Run) takeLock(lock string) (token int64, err error) {
	err = within(patience, func() error {
		id, ok := r.mine.grant(2)
		if !ok {
			return errors.New("no lease is granted")
		}
		op := r.mine.do("etcdserverpb.KV/Txn", &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte(lock), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(lock), Value: r.mine.tag(0), Lease: id}}}},
		})
		if resp, ok := op.Response.(*pb.TxnResponse); ok && op.Outcome == history.OK && resp.Succeeded {
			token = op.Revision()
			return nil
		}
		time.Sleep(100 * time.Millisecond)
		return fmt.Errorf("%s is held", lock)
	})
	return token, err
}

// fenced writes under a token, and reports that it was let.
func (r *Run) fenced(lock string, token int64) bool {
	value := append(fmt.Appendf(nil, "%d ", token), r.mine.tag(0)...)
	op := r.mine.do("etcdserverpb.KV/Txn", &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(lock), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: token}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(oracle.FencePrefix + lock), Value: value}}}},
	})
	resp, ok := op.Response.(*pb.TxnResponse)
	return ok && op.Outcome == history.OK && resp.Succeeded
}
