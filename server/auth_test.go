package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// secured is a member with authentication on and these users:
//
//	root     administers
//	ann      reads and writes [a,c), reads r
//	bob      reads and writes [b,c)
//	writer   writes [a,c), reads nothing
//	idle     has no role
//	cert     has no password, and ann's role
//
// Everybody's password is the name and "-secret".
type secured struct {
	*solo
	auth pb.AuthClient
	root context.Context
}

func cheapHashes(c *Config) { c.BcryptCost = 4 }

func newSecured(t testing.TB, change ...func(*Config)) *secured {
	t.Helper()
	s := &secured{solo: newSolo(t, append([]func(*Config){cheapHashes}, change...)...)}
	s.auth = pb.NewAuthClient(s.conn)
	ctx := callContext(t)
	setUsers(ctx, t, s.auth)
	s.root = s.as(t, "root")
	return s
}

func setUsers(ctx context.Context, t testing.TB, a pb.AuthClient) {
	t.Helper()
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	perms := map[string][]*authpb.Permission{
		"ann":    {{Key: []byte("a"), RangeEnd: []byte("c"), PermType: authpb.Permission_READWRITE}, {Key: []byte("r"), PermType: authpb.Permission_READ}},
		"bob":    {{Key: []byte("b"), RangeEnd: []byte("c"), PermType: authpb.Permission_READWRITE}},
		"writer": {{Key: []byte("a"), RangeEnd: []byte("c"), PermType: authpb.Permission_WRITE}},
	}
	for _, name := range []string{"root", "ann", "bob", "writer", "idle"} {
		note(second(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Password: name + "-secret"})))
	}
	note(second(a.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}})))
	note(second(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})))
	for _, role := range []string{"ann", "bob", "writer"} {
		note(second(a.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: role})))
		for _, p := range perms[role] {
			note(second(a.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: p})))
		}
		note(second(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: role, Role: role})))
	}
	note(second(a.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "cert", Role: "ann"})))
	note(second(a.AuthEnable(ctx, &pb.AuthEnableRequest{})))
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func login(ctx context.Context, t testing.TB, a pb.AuthClient, user string) string {
	t.Helper()
	resp, err := a.Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: user + "-secret"})
	if err != nil {
		t.Fatalf("login of %s: %v", user, err)
	}
	return resp.Token
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "token", token)
}

// as is a context of the user's; "" is nobody's.
func (s *secured) as(t testing.TB, user string) context.Context {
	t.Helper()
	ctx := callContext(t)
	if user == "" {
		return ctx
	}
	return withToken(ctx, login(ctx, t, s.auth, user))
}

// refused checks the code and text of an error.
func refused(t testing.TB, what string, err error, want *api.Error) {
	t.Helper()
	if want == nil {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if st := status.Convert(err); st.Code() != want.Code || st.Message() != want.Text {
		t.Errorf("%s: %v, want %v %q", what, err, want.Code, want.Text)
	}
}

func TestLogin(t *testing.T) {
	s := newSecured(t)
	ctx := callContext(t)
	for what, c := range map[string]struct {
		name, password string
		want           *api.Error
	}{
		"right":       {"ann", "ann-secret", nil},
		"wrong":       {"ann", "bob-secret", api.ErrAuthFailed},
		"empty":       {"ann", "", api.ErrAuthFailed},
		"unknown":     {"nobody", "ann-secret", api.ErrAuthFailed},
		"no name":     {"", "", api.ErrAuthFailed},
		"no password": {"cert", "", api.ErrNoPasswordUser},
	} {
		resp, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: c.name, Password: c.password})
		refused(t, what, err, c.want)
		if (resp.GetToken() == "") != (c.want != nil) {
			t.Errorf("%s: token %q", what, resp.GetToken())
		}
	}
	for _, key := range []string{"token", "authorization"} {
		for _, prefix := range []string{"", "Bearer "} {
			as := metadata.AppendToOutgoingContext(ctx, key, prefix+login(ctx, t, s.auth, "ann"))
			refused(t, key, second(s.kv.Put(as, &pb.PutRequest{Key: []byte("a")})), nil)
		}
	}
	refused(t, "forged", second(s.kv.Put(withToken(ctx, "abcdefghijklmnop.12"), &pb.PutRequest{Key: []byte("a")})), api.ErrInvalidAuthToken)
	if _, err := s.auth.AuthDisable(s.root, &pb.AuthDisableRequest{}); err != nil {
		t.Fatal(err)
	}
	refused(t, "while off", second(s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "ann-secret"})), api.ErrAuthNotEnabled)
	refused(t, "a token while off", second(s.kv.Put(withToken(ctx, "nonsense"), &pb.PutRequest{Key: []byte("z")})), nil)
}

// TestLoginIsThrottled: guessing is slowed down for whoever guesses, and for
// nobody else; the right password after the pause ends it.
func TestLoginIsThrottled(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.AuthFreeFailures = 3 })
	ctx := callContext(t)
	guess := func(password string) error {
		return second(s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "bob", Password: password}))
	}
	for range 3 {
		refused(t, "a guess", guess("x"), api.ErrAuthFailed)
	}
	refused(t, "one guess too many", guess("x"), api.ErrTooManyRequests)
	refused(t, "the right one, too early", guess("bob-secret"), api.ErrTooManyRequests)
	login(ctx, t, s.auth, "ann")
	s.clock.Advance(time.Second)
	refused(t, "the right one", guess("bob-secret"), nil)
	refused(t, "a guess again", guess("x"), api.ErrAuthFailed)
}

// question is one kind of request, and who may make it.
type question struct {
	what string
	call func(ctx context.Context) error
	may  []string
}

func (s *secured) keyQuestions() []question {
	return []question{
		{"put a", func(ctx context.Context) error { return second(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("a")})) }, []string{"root", "ann", "writer"}},
		{"put a, prev_kv", func(ctx context.Context) error {
			return second(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), PrevKv: true}))
		}, []string{"root", "ann"}},
		{"put b", func(ctx context.Context) error { return second(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("b")})) }, []string{"root", "ann", "bob", "writer"}},
		{"get a", func(ctx context.Context) error {
			return second(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}))
		}, []string{"root", "ann"}},
		{"get a, serializable", func(ctx context.Context) error {
			return second(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true}))
		}, []string{"root", "ann"}},
		{"get all", func(ctx context.Context) error {
			return second(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}))
		}, []string{"root"}},
		{"get stream", func(ctx context.Context) error {
			stream, err := s.kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("c")})
			for err == nil {
				_, err = stream.Recv()
			}
			if err == io.EOF {
				return nil
			}
			return err
		}, []string{"root", "ann", "bob"}},
		{"delete", func(ctx context.Context) error {
			return second(s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("bb")}))
		}, []string{"root", "ann", "bob", "writer"}},
		{"delete, prev_kv", func(ctx context.Context) error {
			return second(s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("bb"), PrevKv: true}))
		}, []string{"root", "ann", "bob"}},
	}
}

func (s *secured) otherQuestions() []question {
	return []question{
		{"compact", func(ctx context.Context) error {
			return second(s.kv.Compact(ctx, &pb.CompactionRequest{Revision: int64(s.store.Revision())}))
		}, []string{"root"}},
		{"user list", func(ctx context.Context) error {
			return second(s.auth.UserList(ctx, &pb.AuthUserListRequest{}))
		}, []string{"root"}},
		{"bob's roles", func(ctx context.Context) error {
			return second(s.auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: "bob"}))
		}, []string{"root", "bob"}},
		{"bob's role", func(ctx context.Context) error {
			return second(s.auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "bob"}))
		}, []string{"root", "bob"}},
		{"role list", func(ctx context.Context) error {
			return second(s.auth.RoleList(ctx, &pb.AuthRoleListRequest{}))
		}, []string{"root"}},
		{"status", func(ctx context.Context) error {
			return second(pb.NewMaintenanceClient(s.conn).Status(ctx, &pb.StatusRequest{}))
		}, []string{"root", "ann", "bob", "writer", "idle"}},
		{"alarms", func(ctx context.Context) error {
			return second(pb.NewMaintenanceClient(s.conn).Alarm(ctx, &pb.AlarmRequest{}))
		}, []string{"root", "ann", "bob", "writer", "idle"}},
		{"members", func(ctx context.Context) error {
			return second(pb.NewClusterClient(s.conn).MemberList(ctx, &pb.MemberListRequest{}))
		}, []string{"root", "ann", "bob", "writer", "idle"}},
		{"grant", func(ctx context.Context) error {
			return second(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100}))
		}, []string{"root", "ann", "bob", "writer", "idle"}},
	}
}

// TestRights asks what each user may do, by every kind of request.
func TestRights(t *testing.T) {
	s := newSecured(t)
	denied, empty, invalid := api.ErrPermissionDenied, api.ErrUserEmpty, api.ErrInvalidAuthToken
	ctxs := map[string]context.Context{"": callContext(t), "forged": withToken(callContext(t), "forged")}
	for _, u := range []string{"root", "ann", "bob", "writer", "idle"} {
		ctxs[u] = s.as(t, u)
	}
	for _, c := range append(s.keyQuestions(), s.otherQuestions()...) {
		for who, ctx := range ctxs {
			want := denied
			switch {
			case who == "":
				want = empty
			case who == "forged":
				want = invalid
			case strings.Contains(" "+strings.Join(c.may, " ")+" ", " "+who+" "):
				want = nil
			}
			refused(t, c.what+" by "+who, c.call(ctx), want)
		}
	}
}

// TestLeaseRights: a lease is as private as its keys.
func TestLeaseRights(t *testing.T) {
	s := newSecured(t)
	ann, bob, writer, nobody := s.as(t, "ann"), s.as(t, "bob"), s.as(t, "writer"), s.as(t, "")
	denied, empty := api.ErrPermissionDenied, api.ErrUserEmpty
	for _, id := range []int64{5, 6, 7} {
		if _, err := s.lease.LeaseGrant(s.root, &pb.LeaseGrantRequest{ID: id, TTL: 100}); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, "put", second(s.kv.Put(ann, &pb.PutRequest{Key: []byte("a"), Lease: 5})), nil)
	refused(t, "attach beside a foreign key", second(s.kv.Put(bob, &pb.PutRequest{Key: []byte("b"), Lease: 5})), denied)
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Lease: 5}}}
	refused(t, "the same in a transaction", second(s.kv.Txn(bob, &pb.TxnRequest{Failure: ops(put)})), denied)
	refused(t, "attach to a lease of one's own", second(s.kv.Put(bob, &pb.PutRequest{Key: []byte("b"), Lease: 6})), nil)
	refused(t, "no such lease", second(s.kv.Put(bob, &pb.PutRequest{Key: []byte("b"), Lease: 99})), api.ErrLeaseNotFound)

	ttl := func(ctx context.Context, id int64, keys bool) error {
		return second(s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys}))
	}
	refused(t, "see one's keys", ttl(ann, 5, true), nil)
	refused(t, "see foreign keys", ttl(bob, 5, true), denied)
	refused(t, "see keys one may only write", ttl(writer, 5, true), denied)
	refused(t, "see the time", ttl(bob, 5, false), nil)
	refused(t, "see no lease", ttl(bob, 99, true), nil)
	refused(t, "nobody sees", ttl(nobody, 5, false), empty)

	renew := func(ctx context.Context, id int64) error {
		stream, err := s.lease.LeaseKeepAlive(ctx)
		if err == nil {
			err = stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	refused(t, "renew", renew(ann, 5), nil)
	refused(t, "renew what one may only write", renew(writer, 5), nil)
	refused(t, "renew a foreign lease", renew(bob, 5), denied)
	refused(t, "renew no lease", renew(bob, 99), nil)
	refused(t, "nobody renews", renew(nobody, 7), empty)

	list := func(ctx context.Context) error { return second(s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})) }
	refused(t, "list", list(ann), nil)
	refused(t, "list with a foreign key in it", list(bob), denied)
	refused(t, "nobody lists", list(nobody), empty)

	revoke := func(ctx context.Context, id int64) error {
		return second(s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id}))
	}
	refused(t, "revoke a foreign lease", revoke(bob, 5), denied)
	refused(t, "nobody revokes", revoke(nobody, 7), empty)
	refused(t, "revoke one without keys", revoke(bob, 7), nil)
	refused(t, "revoke", revoke(writer, 5), nil)
	refused(t, "revoke no lease", revoke(bob, 99), api.ErrLeaseNotFound)
	refused(t, "the leases left", list(bob), nil)
}

// certificateContext is a call over TLS whose client showed a certificate.
func certificateContext(name string, md ...string) context.Context {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	ctx := peer.NewContext(context.Background(), &peer.Peer{
		Addr:     &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}},
	})
	return metadata.NewIncomingContext(ctx, metadata.Pairs(md...))
}

func TestCertificateNamesTheUser(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.ClientTLS.ClientCertAuth = true })
	ask := func(ctx context.Context) (string, error) {
		who, err := s.Server.caller(ctx)
		return who.Name, err
	}
	if name, err := ask(certificateContext("cert")); name != "cert" || err != nil {
		t.Errorf("known as %q, %v", name, err)
	}
	token := login(callContext(t), t, s.auth, "bob")
	if name, err := ask(certificateContext("cert", "token", token)); name != "bob" || err != nil {
		t.Errorf("a token does not come first: %q, %v", name, err)
	}
	if _, err := ask(certificateContext("cert", "token", "forged")); err != error(api.ErrInvalidAuthToken) {
		t.Errorf("a forged token falls back to the certificate: %v", err)
	}
	if _, err := s.Range(certificateContext("cert"), &rangeRequest{key: []byte("a")}); err != nil {
		t.Errorf("the certificate's user reads: %v", err)
	}
	if _, err := s.Range(certificateContext(""), &rangeRequest{key: []byte("a")}); err != error(api.ErrPermissionDenied) {
		t.Errorf("a certificate without a name: %v", err)
	}
	without := newSecured(t)
	if who, err := without.Server.caller(certificateContext("cert")); who.Known() || err != nil {
		t.Errorf("without --client-cert-auth the name counts: %+v, %v", who, err)
	}
}

// TestRowsOfAStateOfEtcd: a member over etcd's rows, which have no secret, gives
// tokens out, and its rows are etcd's again.
func TestRowsOfAStateOfEtcd(t *testing.T) {
	s := newSecured(t)
	tx := s.store.Begin()
	tx.DeleteRaw(engine.Auth, []byte("keelsonTokenSecret"))
	tx.End()
	s.store.Seal(1000, 1)
	s.store.Publish()
	s.log.mu.Lock()
	s.log.mu.index = 1000
	s.log.mu.Unlock()
	if err := s.Server.auth.load(s.store); err != nil {
		t.Fatal(err)
	}
	if s.Server.auth.now.Load().Secret() != nil {
		t.Fatal("the secret is still there")
	}
	refused(t, "put", second(s.kv.Put(s.as(t, "ann"), &pb.PutRequest{Key: []byte("a")})), nil)
	if state, err := auth.Load(s.store.Raw); err != nil || state.Secret() == nil || !state.Enabled {
		t.Errorf("the rows load to %+v, %v", state, err)
	}
}

// TestJWTOfAnOldRevision: a signed token ends with the next change of users.
func TestJWTOfAnOldRevision(t *testing.T) {
	dir := t.TempDir()
	key := dir + "/key"
	if err := os.WriteFile(key, []byte("a shared key"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSecured(t, func(c *Config) { c.AuthToken = "jwt,sign-method=HS256,priv-key=" + key })
	ann := s.as(t, "ann")
	refused(t, "put", second(s.kv.Put(ann, &pb.PutRequest{Key: []byte("a")})), nil)
	if _, err := s.auth.RoleAdd(s.root, &pb.AuthRoleAddRequest{Name: "new"}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"put": second(s.kv.Put(ann, &pb.PutRequest{Key: []byte("a")})),
		"get": second(s.kv.Range(ann, &pb.RangeRequest{Key: []byte("a")})),
		"txn": second(s.kv.Txn(ann, &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a")}}})),
	} {
		refused(t, what, err, api.ErrAuthOldRevision)
	}
	refused(t, "administration goes on", second(s.auth.RoleAdd(s.root, &pb.AuthRoleAddRequest{Name: "newer"})), nil)
	if _, err := newSolo(t).kv.Range(callContext(t), &pb.RangeRequest{Key: []byte("a")}); status.Code(err) != codes.OK {
		t.Errorf("without users: %v", err)
	}
}
