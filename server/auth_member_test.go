package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// startSecured starts three members and sets the users of newSecured.
func startSecured(t *testing.T) (*testCluster, []*testMember) {
	t.Helper()
	c := newTestCluster(3)
	c.change = cheapHashes
	members := c.startAll(t)
	leader(t, members...)
	setUsers(callContext(t), t, pb.NewAuthClient(members[0].conn))
	return c, members
}

// TestTokensOnEveryMember: a token works on the other members at once, through
// restarts, and ends on all of them with its password.
func TestTokensOnEveryMember(t *testing.T) {
	c, members := startSecured(t)
	ctx := callContext(t)
	for i, at := range members {
		token := login(ctx, t, pb.NewAuthClient(at.conn), "ann")
		as := withToken(ctx, token)
		for j, m := range members {
			refused(t, fmt.Sprintf("token of %d on %d", i, j), second(m.kv().Put(as, &pb.PutRequest{Key: []byte("a")})), nil)
			refused(t, fmt.Sprintf("serializable, token of %d on %d", i, j),
				second(m.kv().Range(as, &pb.RangeRequest{Key: []byte("a"), Serializable: true})), nil)
		}
	}
	root := withToken(ctx, login(ctx, t, pb.NewAuthClient(members[1].conn), "root"))
	ann := withToken(ctx, login(ctx, t, pb.NewAuthClient(members[1].conn), "ann"))
	members[0].end(t)
	members[0] = c.start(t, c.names[0])
	refused(t, "after a restart", second(members[0].kv().Put(ann, &pb.PutRequest{Key: []byte("a")})), nil)

	change := &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "another"}
	if _, err := pb.NewAuthClient(members[2].conn).UserChangePassword(root, change); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		refused(t, fmt.Sprint("after the password changed, on ", i), second(m.kv().Put(ann, &pb.PutRequest{Key: []byte("a")})), api.ErrInvalidAuthToken)
	}
	// What was granted anywhere counts everywhere, at once.
	idle := withToken(ctx, login(ctx, t, pb.NewAuthClient(members[0].conn), "idle"))
	for round := range 10 {
		m, o := members[round%3], members[(round+1)%3]
		a := pb.NewAuthClient(m.conn)
		if _, err := a.UserGrantRole(root, &pb.AuthUserGrantRoleRequest{User: "idle", Role: "ann"}); err != nil {
			t.Fatal(err)
		}
		refused(t, "granted elsewhere", second(o.kv().Put(idle, &pb.PutRequest{Key: []byte("a")})), nil)
		if _, err := a.UserRevokeRole(root, &pb.AuthUserRevokeRoleRequest{Name: "idle", Role: "ann"}); err != nil {
			t.Fatal(err)
		}
		refused(t, "revoked elsewhere", second(o.kv().Put(idle, &pb.PutRequest{Key: []byte("a")})), api.ErrPermissionDenied)
	}
}

// TestAuthSwitchedOnMeanwhile: a member that has not heard that authentication is
// on takes a command in without asking for the token that came with it.
func TestAuthSwitchedOnMeanwhile(t *testing.T) {
	s := newSecured(t)
	ann, now := s.as(t, "ann"), s.Server.auth.now.Load()
	late := *now
	late.Enabled = false
	rounds := 0
	s.log.mu.Lock()
	s.log.mu.before = func() { rounds++; s.Server.auth.now.Store(now) }
	s.log.mu.Unlock()
	for name, c := range map[string]struct {
		ctx  context.Context
		key  string
		want *api.Error
	}{
		"with a token":         {ann, "a", nil},
		"with too few rights":  {ann, "z", api.ErrPermissionDenied},
		"with nothing to show": {callContext(t), "a", api.ErrUserEmpty},
	} {
		s.Server.auth.now.Store(&late)
		refused(t, name, second(s.kv.Put(c.ctx, &pb.PutRequest{Key: []byte(c.key)})), c.want)
	}
	if rounds != 4 {
		t.Errorf("it took %d proposals", rounds)
	}
}

// contents is all that a member keeps of keys and users, but for the header of
// the answer it is read with.
func (m *testMember) contents(t *testing.T) string {
	t.Helper()
	tx, err := m.Store().Read(0)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Release()
	var b strings.Builder
	tx.Scan([]byte{0}, []byte{0}, func(it mvcc.Item) bool {
		rec, err := tx.Record(it)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&b, "%q\n", rec)
		return true
	})
	for _, bucket := range []engine.Bucket{engine.Auth, engine.AuthUsers, engine.AuthRoles} {
		m.Store().Raw(bucket, func(k, v []byte) bool {
			fmt.Fprintf(&b, "%s %q %q\n", bucket, k, v)
			return true
		})
	}
	return b.String()
}

// TestAuthChangesInFlight is row 54: authentication is switched, passwords and
// roles change while clients write through all members. Every answer is one that
// the rights of some moment explain, what was acknowledged is there, and the
// members end equal.
func TestAuthChangesInFlight(t *testing.T) {
	_, members := startSecured(t)
	ctx := callContext(t)
	var stop atomic.Bool
	var wait sync.WaitGroup
	var acked [3]atomic.Int64
	for i, m := range members {
		wait.Go(func() { writeInFlight(ctx, t, m, i, &stop, &acked[i]) })
	}
	changeInFlight(ctx, t, members)
	stop.Store(true)
	wait.Wait()
	last := leader(t, members...)
	root := withToken(ctx, login(ctx, t, pb.NewAuthClient(last.conn), "root"))
	for i := range members {
		resp, err := last.kv().Range(root, &pb.RangeRequest{Key: fmt.Append(nil, "a", i)})
		if err != nil || resp.Count == 1 && resp.Kvs[0].Version < acked[i].Load() || resp.Count == 0 && acked[i].Load() > 0 {
			t.Errorf("writer %d was told of %d writes: %v, %v", i, acked[i].Load(), resp, err)
		}
		if acked[i].Load() == 0 {
			t.Errorf("writer %d wrote nothing", i)
		}
	}
	for _, m := range members {
		if err := m.node.ReadBarrier(ctx); err != nil {
			t.Fatal(err)
		}
		if m.Store().Revision() != members[0].Store().Revision() {
			t.Errorf("%s is at revision %d, not %d", m.cfg.Name, m.Store().Revision(), members[0].Store().Revision())
		}
		got, err := auth.Load(m.Store().Raw)
		if err != nil || got.Revision != m.Server.auth.now.Load().Revision || got.Revision != members[0].Server.auth.now.Load().Revision {
			t.Errorf("%s: auth revision %d on disk, %d in memory, %v", m.cfg.Name, got.Revision, m.Server.auth.now.Load().Revision, err)
		}
		if got, want := m.contents(t), members[0].contents(t); got != want {
			t.Errorf("%s holds\n%s\nwhile %s holds\n%s", m.cfg.Name, got, members[0].cfg.Name, want)
		}
	}
}

// writeInFlight puts a key of its own as ann until stopped, logging in again when
// its token ended. It counts what was acknowledged.
func writeInFlight(ctx context.Context, t *testing.T, m *testMember, i int, stop *atomic.Bool, acked *atomic.Int64) {
	a := pb.NewAuthClient(m.conn)
	as := ctx
	for !stop.Load() {
		_, err := m.kv().Put(as, &pb.PutRequest{Key: fmt.Append(nil, "a", i)})
		switch status.Code(err) {
		case codes.OK:
			acked.Add(1)
		case codes.PermissionDenied: // the role is taken away at the moment
		case codes.InvalidArgument, codes.Unauthenticated: // no token, or one that ended
			switch text := status.Convert(err).Message(); text {
			case api.ErrUserEmpty.Text, api.ErrInvalidAuthToken.Text, api.ErrAuthOldRevision.Text:
			default:
				t.Errorf("put: %v", err)
			}
			if resp, err := a.Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "ann-secret"}); err == nil {
				as = metadata.AppendToOutgoingContext(ctx, "token", resp.Token)
			} else if c := status.Code(err); c != codes.FailedPrecondition && c != codes.InvalidArgument {
				t.Errorf("login: %v", err)
			}
		default:
			t.Errorf("put: %v", err)
			return
		}
	}
}

// changeInFlight makes one change after the other, each through another member.
func changeInFlight(ctx context.Context, t *testing.T, members []*testMember) {
	for round := range 12 {
		a := pb.NewAuthClient(members[round%3].conn)
		root := withToken(ctx, login(ctx, t, a, "root"))
		steps := []func() error{
			func() error {
				return second(a.UserRevokeRole(root, &pb.AuthUserRevokeRoleRequest{Name: "ann", Role: "ann"}))
			},
			func() error {
				return second(a.UserGrantRole(root, &pb.AuthUserGrantRoleRequest{User: "ann", Role: "ann"}))
			},
			func() error {
				return second(a.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "other"}))
			},
			func() error {
				return second(a.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "ann-secret"}))
			},
			func() error {
				return second(a.RoleGrantPermission(root, &pb.AuthRoleGrantPermissionRequest{Name: "ann", Perm: &authpb.Permission{Key: fmt.Append(nil, "x", round)}}))
			},
			func() error { return second(a.AuthDisable(root, &pb.AuthDisableRequest{})) },
			func() error { return second(a.AuthEnable(ctx, &pb.AuthEnableRequest{})) },
		}
		for i, step := range steps {
			if err := step(); err != nil {
				t.Errorf("round %d, step %d: %v", round, i, err)
				return
			}
		}
	}
}
