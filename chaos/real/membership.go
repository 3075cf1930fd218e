//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file is how the nemesis changes the membership: as an operator would, who
// asks again until it is so.

// change repeats a question to the cluster until f says that it is done. A young
// cluster refuses changes, and so does one whose members are not together; an
// answer that was lost shows in the list.
func (r *Run) change(what string, f func(ctx context.Context, c pb.ClusterClient, members []*pb.Member) (done bool, err error)) error {
	err := within(patience, func() error {
		l, err := r.leader()
		if err != nil {
			return err
		}
		return r.admin(l, func(ctx context.Context, c pb.ClusterClient, _ pb.MaintenanceClient, _ pb.KVClient) error {
			list, err := c.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			if err != nil {
				return err
			}
			done, err := f(ctx, c, list.Members)
			if err == nil && !done {
				err = errors.New("it is not so yet")
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("O9: %s: %w", what, err)
	}
	return nil
}

// at finds the member with a peer URL.
func at(members []*pb.Member, url string) *pb.Member {
	for _, x := range members {
		if slices.Contains(x.PeerURLs, url) {
			return x
		}
	}
	return nil
}

// learn adds a member with an empty disk at a free seat, as a learner, and waits
// until it serves.
func (r *Run) learn() (*Member, error) {
	seat := 1
	for slices.ContainsFunc(r.members(), func(m *Member) bool { return m.seat == seat }) {
		seat++
	}
	for _, m := range r.everybody() { // its disk makes room
		if m.seat == seat {
			if err := m.Disk.close(); err != nil {
				return nil, err
			}
		}
	}
	m, err := r.newMember(seat, r.Binary, r.diskBytes())
	if err != nil {
		return nil, err
	}
	m.joins = "existing"
	err = r.change("add "+m.Name, func(ctx context.Context, c pb.ClusterClient, members []*pb.Member) (bool, error) {
		if x := at(members, m.peerURL()); x != nil {
			m.ID = x.ID
			return true, nil
		}
		_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.peerURL()}, IsLearner: true})
		return false, err
	})
	if err == nil {
		err = m.start()
	}
	if err == nil {
		err = within(patience, func() error { _, err := m.status(); return err })
	}
	return m, err
}

// join makes a voter of a new member.
func (r *Run) join() (*Member, error) {
	m, err := r.learn()
	if err != nil {
		return m, err
	}
	err = r.change("promote "+m.Name, func(ctx context.Context, c pb.ClusterClient, members []*pb.Member) (bool, error) {
		x := at(members, m.peerURL())
		if x == nil {
			return false, fmt.Errorf("O6: %s is no member any more", m.Name)
		}
		if !x.IsLearner {
			return true, nil
		}
		_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: x.ID})
		return false, err
	})
	w := &watcher{n: 400 + len(r.watchers), c: r.Cluster, rec: r.rec, at: m}
	r.watch(w)
	return m, errors.Join(err, r.load.point())
}

// removed is the exit code of a member that learns that it was removed.
const removed = 9

// dismiss removes a member, and demands that it ends as one that was removed, if
// it runs.
func (r *Run) dismiss(m *Member) error {
	m.expect("removed")
	err := r.change("remove "+m.Name, func(ctx context.Context, c pb.ClusterClient, members []*pb.Member) (bool, error) {
		x := at(members, m.peerURL())
		if x == nil {
			return true, nil
		}
		_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: x.ID})
		return false, err
	})
	if err != nil {
		return err
	}
	r.retire(m)
	return errors.Join(r.load.point(), m.gone())
}

// gone demands that a removed member stops by itself.
func (m *Member) gone() error {
	if err := m.wait(30 * time.Second); err != nil {
		return fmt.Errorf("O12: %s was removed: %w", m.Name, err)
	}
	all := m.exits()
	if e := all[len(all)-1]; e.Code != removed && e.Signal == "" {
		return fmt.Errorf("O12: %s was removed and ended with code %d %s: %s", m.Name, e.Code, e.Signal, e.Last)
	}
	return nil
}
