package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/client"
)

type event = mvccpb.Event

// follower receives all changes of the source, in groups of one revision each.
type follower struct {
	events chan []*event // closed at the end; then err says why
	err    error
	done   chan struct{}
}

// followAhead is how many groups may wait to be replayed.
const followAhead = 1024

// errFellBehind: the source gave up history that was not followed yet.
var errFellBehind = errors.New("the source compacted what was not copied yet: begin again, with a longer retention of history at the source")

// follow watches all keys from a revision on, whatever breaks. It ends with ctx.
func (m *migration) follow(ctx context.Context, from int64) (*follower, error) {
	r, err := m.a.patient()
	if err != nil {
		return nil, err
	}
	f := &follower{events: make(chan []*event, followAhead), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer close(f.events)
		var group []*event
		for ev, err := range r.Watch(ctx, client.All(), client.After(client.Revision(from-1))) {
			if err != nil {
				f.err = err
				if errors.Is(err, client.ErrCompacted) {
					f.err = errFellBehind
				}
				return
			}
			if group = append(group, eventOnWire(ev)); ev.More {
				continue
			}
			select {
			case f.events <- group:
				group = nil
			case <-ctx.Done():
				f.err = ctx.Err()
				return
			}
		}
	}()
	return f, nil
}

// sourceRevision asks for the newest revision that a majority knows.
func (m *migration) sourceRevision(ctx context.Context) (rev int64, err error) {
	err = m.a.call(ctx, "migrate: ask for the revision", func(ctx context.Context, r *remote) error {
		resp, err := r.kv().Range(ctx, &pb.RangeRequest{Key: []byte{0}, CountOnly: true})
		rev = resp.GetHeader().GetRevision()
		return err
	})
	return rev, err
}

// authRevision is 0 at a source that is too old to tell.
func (m *migration) authRevision(ctx context.Context) (rev uint64, err error) {
	err = m.a.call(ctx, "migrate: ask for the auth revision", func(ctx context.Context, r *remote) error {
		resp, err := r.auth().AuthStatus(ctx, &pb.AuthStatusRequest{})
		rev = resp.GetAuthRevision()
		if status.Code(err) == codes.Unimplemented {
			return nil
		}
		return err
	})
	return rev, err
}

// ttl asks how long a lease of the source lives; 0 when it does not any more.
func (m *migration) ttl(ctx context.Context, id int64) (ttl int64) {
	_ = m.a.call(ctx, "migrate: ask for a lease", func(ctx context.Context, r *remote) error {
		resp, err := r.lease().LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
		ttl = resp.GetGrantedTTL()
		return err
	})
	return ttl
}

// sameLeases gives the replica exactly the source's leases.
func (m *migration) sameLeases(ctx context.Context) error {
	var resp *pb.LeaseLeasesResponse
	err := m.a.call(ctx, "migrate: list the leases", func(ctx context.Context, r *remote) (err error) {
		resp, err = r.lease().LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		return err
	})
	if err != nil {
		return err
	}
	live := map[int64]int64{}
	for _, l := range resp.Leases {
		if ttl := m.ttl(ctx, l.ID); ttl > 0 {
			live[l.ID] = ttl
		}
	}
	if err := m.replica.setLeases(live); err != nil {
		return m.failed("compare the leases", err)
	}
	return nil
}

// page reads keys of the source as of a revision, from a key on.
func (m *migration) page(ctx context.Context, from []byte, limit, rev int64) (resp *pb.RangeResponse, err error) {
	err = m.a.call(ctx, "migrate: compare the keys", func(ctx context.Context, r *remote) error {
		resp, err = r.kv().Range(ctx, &pb.RangeRequest{Key: from, RangeEnd: []byte{0}, Limit: limit, Revision: rev})
		return err
	})
	return resp, err
}

// What a page of a comparison aims at.
const (
	pageBytes = 4 << 20
	pageKeys  = 5000
)

// verify compares every key of the source with the replica's, and returns a
// digest of all and their number.
func (m *migration) verify(ctx context.Context, rev int64) (sum []byte, keys int64, err error) {
	bar := m.a.progress("comparing")
	defer bar.done()
	c := m.replica.compare(rev)
	limit := int64(100)
	for from := []byte{0}; ; {
		resp, err := m.page(ctx, from, limit, rev)
		if err != nil {
			return nil, 0, err
		}
		got := 0
		for _, kv := range resp.Kvs {
			if err := c.next(kv); err != nil {
				return nil, 0, m.failed("compare the keys", err)
			}
			got += len(kv.Key) + len(kv.Value) + 64
		}
		bar.note(fmt.Sprintf("comparing: %d of %d keys", c.keys, c.keys+resp.Count-int64(len(resp.Kvs))))
		if !resp.More {
			break
		}
		from = append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
		limit = max(1, min(pageKeys, limit*pageBytes/int64(max(got, 1))))
	}
	if err := c.end(); err != nil {
		return nil, 0, m.failed("compare the keys", err)
	}
	return c.sum.Sum(nil), c.keys, nil
}

// survey says what is at the source and what a migration would do.
func (m *migration) survey(ctx context.Context) error {
	list, err := m.a.gather(ctx, m.a.endpoints)
	if err != nil {
		return err
	}
	rev, err := m.sourceRevision(ctx)
	if err != nil {
		return err
	}
	var count *pb.RangeResponse
	var leases *pb.LeaseLeasesResponse
	var alarms *pb.AlarmResponse
	err = m.a.call(ctx, "migrate: look at the source", func(ctx context.Context, r *remote) (err error) {
		if count, err = r.kv().Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}); err != nil {
			return err
		}
		if leases, err = r.lease().LeaseLeases(ctx, &pb.LeaseLeasesRequest{}); err != nil {
			return err
		}
		alarms, err = r.admin().Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		return err
	})
	if err != nil {
		return err
	}
	auth, err := m.authRevision(ctx)
	if err != nil {
		return err
	}
	s := list[0].Status
	return m.a.show(result{
		value: map[string]any{
			"version": s.Version, "revision": rev, "keys": count.Count, "bytes": s.DbSize, "leases": len(leases.Leases),
			"alarms": len(alarms.Alarms), "authRevision": auth,
		},
		simple: func(w io.Writer) {
			var at []string
			for _, e := range list {
				at = append(at, e.Endpoint)
			}
			fmt.Fprintf(w, "Source: %s, version %s, revision %d\n", strings.Join(at, ", "), s.Version, rev)
			fmt.Fprintf(w, "        %d keys, %d leases, %d alarm(s), auth revision %d\n", count.Count, len(leases.Leases), len(alarms.Alarms), auth)
			fmt.Fprintf(w, "Would copy %s into %s, follow writes from revision %d on, and at the cut-over compare all keys.\n", size(s.DbSize), m.out, rev+1)
			fmt.Fprintf(w, "Needs about %s of disk twice, and memory for the keys. Nothing was changed.\n", size(s.DbSize))
		},
	})
}
