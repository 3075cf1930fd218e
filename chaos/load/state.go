package load

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// ReadState asks one member for all that it holds, once it has reached a revision.
// Nobody may write meanwhile but the cluster itself, which ends leases: the state
// is read again until it stood still.
func ReadState(ctx context.Context, c Conn, rev int64) (s history.State, err error) {
	for {
		before, err := c.readKeys(ctx, &s)
		if err == nil && before >= rev {
			if err = c.readRest(ctx, &s); err != nil {
				return s, err
			}
			var again history.State
			after, err := c.readKeys(ctx, &again)
			if err == nil && after == before && slices.Equal(s.Keys, again.Keys) {
				return s, nil
			}
		}
		if ctx.Err() != nil {
			return s, fmt.Errorf("%s stands at revision %d, not %d: %w", c.Name, before, rev, ctx.Err())
		}
		pause(ctx, idle)
	}
}

// readPage is how many keys are read at a time.
const readPage = 2000

func (c Conn) readKeys(ctx context.Context, s *history.State) (rev int64, err error) {
	*s = history.State{Member: c.Member}
	q := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: readPage, Serializable: true}
	for {
		r, err := pb.NewKVClient(c).Range(ctx, q)
		if err != nil {
			return rev, err
		}
		if q.Revision == 0 {
			rev = r.Header.Revision
			q.Revision, s.Revision = rev, rev
		}
		s.Keys = append(s.Keys, history.Keys(r.Kvs)...)
		if !r.More {
			return rev, nil
		}
		q.Key = append(r.Kvs[len(r.Kvs)-1].Key, 0)
	}
}

// readRest reads leases, hash, members, users and roles, alarms.
func (c Conn) readRest(ctx context.Context, s *history.State) error {
	hash, err := pb.NewMaintenanceClient(c).HashKV(ctx, &pb.HashKVRequest{})
	if err != nil {
		return err
	}
	s.Hash, s.Compact = hash.Hash, hash.CompactRevision
	leases, err := pb.NewLeaseClient(c).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return err
	}
	s.Leases = map[int64]int64{}
	for _, l := range leases.Leases {
		ttl, err := pb.NewLeaseClient(c).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: l.ID})
		if err != nil {
			return err
		}
		if ttl.TTL >= 0 { // it has not ended meanwhile
			s.Leases[l.ID] = ttl.GrantedTTL
		}
	}
	s.Rows = map[string]string{}
	return c.readRows(ctx, s.Rows)
}

func (c Conn) readRows(ctx context.Context, rows map[string]string) error {
	alarms, err := pb.NewMaintenanceClient(c).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil {
		return err
	}
	for _, a := range alarms.Alarms {
		rows[fmt.Sprintf("alarm/%x/%v", a.MemberID, a.Alarm)] = "raised"
	}
	members, err := pb.NewClusterClient(c).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return err
	}
	for _, m := range members.Members {
		slices.Sort(m.PeerURLs)
		slices.Sort(m.ClientURLs)
		if err := row(rows, fmt.Sprintf("members/%x", m.ID), m); err != nil {
			return err
		}
	}
	auth := pb.NewAuthClient(c)
	status, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	if err != nil {
		return err
	}
	rows["auth"] = fmt.Sprint(status.Enabled, " ", status.AuthRevision)
	if status.Enabled {
		return nil // it takes a token to read more
	}
	users, err := auth.UserList(ctx, &pb.AuthUserListRequest{})
	if err != nil {
		return err
	}
	for _, u := range users.Users {
		r, err := auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: u})
		if err != nil {
			return err
		}
		rows["users/"+u] = strings.Join(r.Roles, " ")
	}
	roles, err := auth.RoleList(ctx, &pb.AuthRoleListRequest{})
	if err != nil {
		return err
	}
	for _, name := range roles.Roles {
		r, err := auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: name})
		if err != nil {
			return err
		}
		r.Header = nil
		if err := row(rows, "roles/"+name, r); err != nil {
			return err
		}
	}
	return nil
}

func row(rows map[string]string, name string, m proto.Message) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	rows[name] = string(b)
	return err
}
