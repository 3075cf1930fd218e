package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/raft"
)

// One test for each advisory about etcd's authentication and authorisation: what
// went wrong there must not go wrong here.

// CVE-2018-16886: the JSON gateway's own certificate was taken for the caller's.
func TestCVE_2018_16886_GatewayCertificateIsNobody(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.ClientTLS.ClientCertAuth = true })
	for _, mark := range []string{"grpcgateway-accept", "grpcgateway-user-agent"} {
		ctx := certificateContext("root", mark, "*/*")
		if who, err := s.Server.caller(ctx); who.Known() || err != nil {
			t.Errorf("%s: known as %+v, %v", mark, who, err)
		}
		if err := s.admitRPC(ctx, "/etcdserverpb.Cluster/MemberAdd", nil); err != error(api.ErrUserEmpty) {
			t.Errorf("%s: administration: %v", mark, err)
		}
	}
}

// CVE-2020-15115: passwords of any length were accepted.
func TestCVE_2020_15115_PasswordPolicy(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.MinPasswordLength = 8 })
	short := api.ErrPasswordTooShort
	add := func(name, password string) error {
		return second(s.auth.UserAdd(s.root, &pb.AuthUserAddRequest{Name: name, Password: password}))
	}
	change := func(r *pb.AuthUserChangePasswordRequest) error { return second(s.auth.UserChangePassword(s.root, r)) }
	refused(t, "short", add("eve", "1234567"), short)
	refused(t, "none", add("eve", ""), short)
	refused(t, "long enough", add("eve", "12345678"), nil)
	refused(t, "change to a short one", change(&pb.AuthUserChangePasswordRequest{Name: "eve", Password: "1234567"}), short)
	refused(t, "change to none", change(&pb.AuthUserChangePasswordRequest{Name: "eve"}), short)
	refused(t, "change", change(&pb.AuthUserChangePasswordRequest{Name: "eve", Password: "123456789"}), nil)
	refused(t, "a user without password", change(&pb.AuthUserChangePasswordRequest{Name: "cert"}), nil)

	byDefault := newSolo(t, cheapHashes)
	_, err := pb.NewAuthClient(byDefault.conn).UserAdd(callContext(t), &pb.AuthUserAddRequest{Name: "eve"})
	refused(t, "no password by default", err, short)
}

// GHSA-528j-9r78-wffx: passwords were in the log of Raft in plain text.
// CVE-2021-28235: a password could be seen in a request after it was used.
// etcd #20941: tokens were printed. GHSA-vjg6-93fv-qv64: logs did not tell how a
// user was known.
func TestGHSA_528j_CVE_2021_28235_NoSecretLeavesTheRequest(t *testing.T) {
	logs := &lockedBuffer{}
	s := newSecured(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.ClientTLS.ClientCertAuth = true
		c.WarnUnaryDuration = -1 // every request is logged as slow
	})
	ctx := callContext(t)
	var secrets []string
	hide := func(parts ...string) { secrets = append(secrets, parts...) }
	hide("swordfish", "fresh-secret", "mistaken-guess", "ann-secret")
	token := login(ctx, t, s.auth, "ann")
	hide(token, "forged-token-0123456789")
	note := func(err error, want codes.Code) {
		t.Helper()
		if status.Code(err) != want {
			t.Fatalf("%v, want %v", err, want)
		}
		if err != nil {
			logs.Write([]byte(err.Error()))
		}
	}
	note(second(s.auth.UserAdd(s.root, &pb.AuthUserAddRequest{Name: "eve", Password: "swordfish"})), codes.OK)
	note(second(s.auth.UserChangePassword(s.root, &pb.AuthUserChangePasswordRequest{Name: "eve", Password: "fresh-secret"})), codes.OK)
	note(second(s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "eve", Password: "mistaken-guess"})), codes.InvalidArgument)
	note(second(s.kv.Put(withToken(ctx, token), &pb.PutRequest{Key: []byte("z")})), codes.PermissionDenied)
	note(second(s.kv.Put(withToken(ctx, "forged-token-0123456789"), &pb.PutRequest{Key: []byte("z")})), codes.Unauthenticated)
	if _, err := s.Server.caller(certificateContext("cert")); err != nil {
		t.Fatal(err)
	}
	hash, _, _ := s.Server.auth.now.Load().Password("eve")
	hide(string(hash), string(s.Server.auth.now.Load().Secret()))

	r := &message[pb.AuthenticateRequest]{}
	r.m.Name, r.m.Password = "eve", "fresh-secret"
	if _, err := s.authenticate(ctx, r); err != nil || r.m.Password != "" {
		t.Errorf("the request still has its password (%v)", err)
	}
	for kind := range commandNeeds {
		body := s.log.lastBody(kind)
		for _, secret := range secrets[:6] { // hashes belong into the log
			if bytes.Contains(body, []byte(secret)) {
				t.Errorf("command %d carries %q", kind, secret)
			}
		}
	}
	text := logs.String()
	for _, secret := range secrets {
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%q", secret)) {
			t.Errorf("the log has the secret %q", secret)
		}
	}
	for _, told := range []string{"failed login", "invalid token", "client is known by its certificate", "users or roles changed"} {
		if !strings.Contains(text, told) {
			t.Errorf("the log does not say %q", told)
		}
	}
}

// lockedBuffer collects what several goroutines log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// CVE-2023-32082: LeaseTimeToLive showed keys that the caller may not read. The
// keys of the leader's answer are what counts, wherever they came from.
func TestCVE_2023_32082_LeaseKeysAreRead(t *testing.T) {
	s := newSecured(t)
	if _, err := s.lease.LeaseGrant(s.root, &pb.LeaseGrantRequest{ID: 5, TTL: 100}); err != nil {
		t.Fatal(err)
	}
	bob := s.as(t, "bob")
	// This member follows; the leader has a key attached that is not here yet.
	s.log.mu.Lock()
	s.log.mu.call = func([]byte) []byte {
		b := appendUint(nil, fieldAnswerKind, answerOK)
		b = appendInt(b, fieldAnswerTTL, 50)
		return appendBytes(b, fieldAnswerKey, []byte("a-secret-name"))
	}
	s.log.mu.Unlock()
	s.log.elect(otherMember)
	ask := func(ctx context.Context, keys bool) (*pb.LeaseTimeToLiveResponse, error) {
		return s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 5, Keys: keys})
	}
	resp, err := ask(bob, true)
	refused(t, "a foreign key", err, api.ErrPermissionDenied)
	if len(resp.GetKeys()) != 0 {
		t.Errorf("it shows %q", resp.Keys)
	}
	if resp, err = ask(s.as(t, "ann"), true); err != nil || len(resp.Keys) != 1 {
		t.Errorf("one's own key: %v, %v", resp, err)
	}
}

// CVE-2026-33413: MemberList, Alarm, the lease RPCs and Compact asked for nothing.
func TestCVE_2026_33413_EveryRPCAsks(t *testing.T) {
	s := newSecured(t)
	for method, n := range rpcNeeds {
		nobody := certificateContext("")
		err := s.admitRPC(nobody, method, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE})
		switch n {
		case needUser, needRoot, needAlarm:
			if err != error(api.ErrUserEmpty) {
				t.Errorf("%s by nobody: %v", method, err)
			}
		case needNothing, needKeys, needLease, needSelf: // TestRights and TestLeaseRights ask those
			if err != nil {
				t.Errorf("%s is refused before its keys are known: %v", method, err)
			}
		}
		if n != needRoot && n != needAlarm {
			continue
		}
		idle := certificateContext("", "token", login(callContext(t), t, s.auth, "idle"))
		if err := s.admitRPC(idle, method, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE}); err != error(api.ErrPermissionDenied) {
			t.Errorf("%s by a user without roles: %v", method, err)
		}
	}
}

// deepOp nests an operation in n transactions.
func deepOp(n int, o *pb.RequestOp) *pb.RequestOp {
	for range n {
		o = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{o}}}}
	}
	return o
}

// CVE-2026-33343: operations of nested transactions were not checked.
// CVE-2026-44283: prev_kv and lease of a put in a transaction were not checked.
func TestCVE_2026_33343_CVE_2026_44283_NestedOperations(t *testing.T) {
	s := newSecured(t)
	if _, err := s.lease.LeaseGrant(s.root, &pb.LeaseGrantRequest{ID: 5, TTL: 100}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Put(s.root, &pb.PutRequest{Key: []byte("root's"), Lease: 5}); err != nil {
		t.Fatal(err)
	}
	bob, writer := s.as(t, "bob"), s.as(t, "writer")
	put := func(r *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	}
	del := func(r *pb.DeleteRangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}}
	compare := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a")}}}}}
	b := []byte("b")
	for depth := range 4 {
		for what, c := range map[string]struct {
			ctx  context.Context
			op   *pb.RequestOp
			want *api.Error
		}{
			"put":                      {bob, put(&pb.PutRequest{Key: []byte("a")}), api.ErrPermissionDenied},
			"get":                      {bob, get, api.ErrPermissionDenied},
			"compare":                  {bob, compare, api.ErrPermissionDenied},
			"delete":                   {bob, del(&pb.DeleteRangeRequest{Key: b, RangeEnd: []byte("d")}), api.ErrPermissionDenied},
			"lease":                    {bob, put(&pb.PutRequest{Key: b, Lease: 5}), api.ErrPermissionDenied},
			"prev_kv":                  {writer, put(&pb.PutRequest{Key: b, PrevKv: true}), api.ErrPermissionDenied},
			"delete with prev_kv":      {writer, del(&pb.DeleteRangeRequest{Key: b, PrevKv: true}), api.ErrPermissionDenied},
			"what one may":             {writer, put(&pb.PutRequest{Key: b}), nil},
			"what one may, with value": {bob, put(&pb.PutRequest{Key: b, PrevKv: true}), nil},
		} {
			_, err := s.kv.Txn(c.ctx, &pb.TxnRequest{Success: ops(deepOp(depth, c.op))})
			refused(t, fmt.Sprintf("%s at depth %d", what, depth), err, c.want)
			// The branch that is not taken counts, too.
			_, err = s.kv.Txn(c.ctx, &pb.TxnRequest{Failure: ops(deepOp(depth, c.op))})
			refused(t, fmt.Sprintf("%s at depth %d, not taken", what, depth), err, c.want)
		}
	}
}

// CVE-2026-73499: the end "\x00" of a watch was normalised before the check, so
// that the right to one key was the right to all keys from it on.
func TestCVE_2026_73499_WatchRange(t *testing.T) {
	s := newSecured(t)
	ann := s.as(t, "ann")
	for _, c := range []struct {
		key, end string
		want     *api.Error
	}{
		{"r", "", nil}, {"r", "\x00", api.ErrPermissionDenied}, {"a", "\x00", api.ErrPermissionDenied}, {"", "\x00", api.ErrPermissionDenied},
		{"a", "c", nil}, {"a", "c\x00", api.ErrPermissionDenied}, {"", "", api.ErrPermissionDenied}, {"b", "", nil}, {"r", "r\x00", nil},
	} {
		stream, err := pb.NewWatchClient(s.conn).Watch(ann)
		if err != nil {
			t.Fatal(err)
		}
		create := &pb.WatchCreateRequest{Key: []byte(c.key), RangeEnd: []byte(c.end)}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		reason := ""
		if c.want != nil {
			reason = c.want.GRPCStatus().Err().Error()
		}
		if !resp.Created || resp.Canceled != (c.want != nil) || resp.CancelReason != reason {
			t.Errorf("watch of %q to %q: %v", c.key, c.end, resp)
		}
	}
	// The same ranges, read: the check and the execution agree on what they are.
	refused(t, "range from r on", second(s.kv.Range(ann, &pb.RangeRequest{Key: []byte("r"), RangeEnd: []byte{0}})), api.ErrPermissionDenied)
}

// etcd #14571: members decided differently about one command, by the auth revision
// that each had. Here the answer depends on the log alone: the same commands,
// applied one by one or all in one batch, end alike. Also: users and rights that
// change while a command is on its way.
func TestEtcd14571_SameDecisionOnEveryMember(t *testing.T) {
	one, other := newSecured(t), newSolo(t, cheapHashes)
	rev := one.Server.auth.now.Load().Revision
	who := func(name string, rev uint64) string { return auth.Principal{Name: name, Revision: rev}.String() }
	put := []byte("\x0a\x01a") // PutRequest{key: "a"}
	revoke := []byte("\x0a\x03ann\x12\x03ann")
	script := []*raft.Command{
		{Kind: commandPut, Principal: who("ann", rev), Body: put},
		{Kind: commandPut, Principal: "", Body: put},
		{Kind: commandUserRevokeRole, Principal: who("ann", rev), Body: revoke},
		{Kind: commandUserRevokeRole, Principal: who("root", rev), Body: revoke},
		{Kind: commandPut, Principal: who("ann", rev), Body: put},
		{Kind: commandPut, Principal: who("ann", rev+1), Body: put},
		{Kind: commandAuthDisable, Principal: who("root", rev), Body: nil},
		{Kind: commandPut, Principal: "", Body: put},
	}
	want := []error{nil, api.ErrUserEmpty, api.ErrPermissionDenied, nil, api.ErrAuthOldRevision, api.ErrPermissionDenied, nil, nil}
	for i, c := range script {
		one.log.mu.Lock()
		one.log.applyLocked(c)
		one.log.mu.Unlock()
		if c.Err != want[i] && c.Err != error(want[i]) {
			t.Errorf("command %d: %v, want %v", i, c.Err, want[i])
		}
	}
	setUsers(callContext(t), t, pb.NewAuthClient(other.conn))
	again := make([]*raft.Command, len(script))
	for i, c := range script {
		again[i] = &raft.Command{Kind: c.Kind, Principal: c.Principal, Body: c.Body}
	}
	other.log.mu.Lock()
	other.log.applyLocked(again...)
	other.log.mu.Unlock()
	for i := range script {
		if again[i].Err != script[i].Err {
			t.Errorf("command %d: %v in a batch, %v by itself", i, again[i].Err, script[i].Err)
		}
	}
	if a, b := one.store.Revision(), other.store.Revision(); a != b {
		t.Errorf("the members are at revisions %d and %d", a, b)
	}
}

// CVE-2018-16886, seen from a browser: a certificate's name is refused at the
// gateway's door, with etcd's words, while authentication is on.
func TestCVE_2018_16886_GatewayRefusesNames(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.ClientTLS.ClientCertAuth = true })
	off := newSolo(t, func(c *Config) { c.ClientTLS.ClientCertAuth = true })
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for what, c := range map[string]struct {
		a    *authority
		name string
		tls  bool
		want int
	}{
		"a name": {s.Server.auth, "root", true, http.StatusBadRequest}, "no name": {s.Server.auth, "", true, http.StatusTeapot},
		"no TLS": {s.Server.auth, "", false, http.StatusTeapot}, "no users": {off.auth, "root", true, http.StatusTeapot},
	} {
		r := httptest.NewRequest(http.MethodPost, "/v3/kv/range", nil)
		if r.TLS = nil; c.tls {
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: c.name}}}}}
		}
		w := httptest.NewRecorder()
		c.a.refuseNames(served).ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", what, w.Code, c.want)
		}
	}
}
