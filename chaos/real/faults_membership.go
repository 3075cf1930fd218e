//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var membershipFaults = []*Fault{
	{Name: "replace-member", Row: 39, About: "a member is replaced by one with an empty disk", Times: 2, Logs: strangers, Inject: replaceMember},
	{Name: "remove-leader", Row: 39, About: "the leader is removed, and a new member takes its seat", Times: 2, Logs: strangers, Inject: removeLeader},
	{Name: "early-promotion", Row: 40, About: "a learner that never started is to be promoted", Times: 1, Inject: earlyPromotion},
	{Name: "learner-alone", Row: 40, About: "clients reach a learner alone", Times: 1, Logs: strangers, Inject: learnerAlone},
	{Name: "removed-returns", Row: 41, About: "a removed member starts again with its old directory", Times: 2, Logs: strangers, Inject: removedReturns},
	{Name: "other-cluster", Row: 41, About: "a member of another cluster calls at the members' addresses", Times: 2, Logs: strangers, Inject: otherCluster},
}

// strangers is what members say of those that do not belong to them.
var strangers = []string{"refused a peer", "a peer refused this member", "belongs to another cluster"}

// replaceMember replaces one that is dead, or lives on until the new one votes. With
// a dead one the cluster takes nobody in.
func replaceMember(r *Run) error {
	old := r.some()
	if r.rand.IntN(2) == 0 {
		err := old.kill("kill")
		if err == nil {
			err = r.dismiss(old)
		}
		if err == nil {
			_, err = r.join()
		}
		return err
	}
	if _, err := r.join(); err != nil {
		return err
	}
	return r.dismiss(old)
}

func removeLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	if err := r.dismiss(m); err != nil {
		return err
	}
	_, err = r.join()
	return err
}

// earlyPromotion adds a learner at a seat where nobody is. It must stay one.
func earlyPromotion(r *Run) error {
	url := fmt.Sprintf("%s://%s:2380", r.scheme(), address(seats))
	promoted, tried := false, false
	return r.change("a learner that never starts", func(ctx context.Context, c pb.ClusterClient, members []*pb.Member) (bool, error) {
		x := at(members, url)
		switch {
		case x == nil && tried:
			if promoted {
				return false, errors.New("O6: a learner that never started was promoted")
			}
			return true, nil
		case x == nil:
			_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: true})
			return false, err
		case !tried:
			_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: x.ID})
			promoted, tried = err == nil, true
			return false, nil
		}
		_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: x.ID})
		return false, err
	})
}

// learnerAlone demands that a learner refuses what only voters may answer.
func learnerAlone(r *Run) error {
	m, err := r.learn()
	if err != nil {
		return err
	}
	for _, o := range r.members() {
		if o != m {
			r.net.SetBoth(o.Addr, r.clients, Link{Cut: true})
		}
	}
	err = r.admin(m, func(ctx context.Context, _ pb.ClusterClient, _ pb.MaintenanceClient, kv pb.KVClient) error {
		_, put := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("of a learner")})
		_, read := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		for what, err := range map[string]error{"write": put, "linearizable read": read} {
			if c := status.Code(err); c != codes.Unavailable && c != codes.FailedPrecondition {
				return fmt.Errorf("O6: a learner answers a %s: %v", what, err)
			}
		}
		return nil
	})
	r.net.Heal()
	return errors.Join(err, r.dismiss(m))
}

// steady demands that terms do not go by while f runs: one may, on a busy machine.
func (r *Run) steady(what string, f func() error) error {
	before, err := r.term()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := r.term()
	if err == nil && after > before+1 {
		err = fmt.Errorf("O9: %d terms went by while %s", after-before, what)
	}
	return err
}

// removedReturns removes a follower, dead or alive, and starts it again and again.
func removedReturns(r *Run) error {
	if _, err := r.join(); err != nil { // the seats stay three
		return err
	}
	m, err := r.follower()
	if err != nil {
		return err
	}
	if r.rand.IntN(2) == 0 {
		if err := m.kill("kill"); err != nil {
			return err
		}
	}
	if err := r.dismiss(m); err != nil {
		return err
	}
	return r.steady("a removed member was there", func() error {
		for range 2 {
			if err := m.start(); err != nil {
				return err
			}
			m.expect("removed")
			if err := m.gone(); err != nil {
				return err
			}
		}
		return r.serves()
	})
}

// otherCluster starts a process at a free seat which believes to be in a cluster
// with the members, whose token is another.
func otherCluster(r *Run) error {
	m, err := r.seat(seats, r.Binary, r.diskBytes())
	if err != nil {
		return err
	}
	m.args = []string{"--initial-cluster-token=another"}
	err = r.steady("a member of another cluster was there", func() error {
		if err := m.start(); err != nil {
			return err
		}
		m.expect("it is of another cluster")
		time.Sleep(2 * r.Election)
		if st, err := m.status(); err == nil && st.Leader != 0 {
			return fmt.Errorf("O6: a member of another cluster follows %x", st.Leader)
		}
		return r.serves()
	})
	r.retire(m)
	if e := m.kill("it is of another cluster"); e != nil && !errors.Is(e, errDown) && !errors.Is(e, os.ErrProcessDone) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, m.Disk.close())
}
