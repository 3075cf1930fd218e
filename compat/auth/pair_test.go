package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/wire"
)

// side is one of the two stores.
type side struct {
	*cluster.Cluster
	conn   *grpc.ClientConn
	tokens map[string]string
}

// pair is etcd and the store named by STORE (kvd by default).
type pair struct {
	t     *testing.T
	ctx   context.Context
	sides [2]*side
}

// start starts both with the same flags. What only kvd has, slower logins after
// failed ones, is off.
func start(t *testing.T, opt cluster.Options) *pair {
	t.Helper()
	systems, err := cluster.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	p := &pair{t: t, ctx: ctx}
	for i, sys := range systems {
		o := opt
		o.Dir, o.NoSync, o.Args = t.TempDir(), true, append([]string{"--bcrypt-cost=4"}, opt.Args...)
		if sys.Name == "kvd" {
			o.Args = append(o.Args, "--auth-free-failures=0")
		}
		c, err := cluster.Start(ctx, sys, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		conn, err := c.Members[0].Dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		p.sides[i] = &side{Cluster: c, conn: conn, tokens: map[string]string{}}
	}
	return p
}

// ask is one request. A request that depends on the store is made by of.
type ask struct {
	rpc  string
	what string
	req  proto.Message
	of   func(s *side) proto.Message
}

func req(rpc, what string, m proto.Message) ask { return ask{rpc: rpc, what: what, req: m} }

// answer sends the request with the token and tells what came, in one text.
func (s *side) answer(ctx context.Context, a ask, token string) string {
	m, err := wire.Lookup(a.rpc)
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if token != "" {
		ctx = wire.WithToken(ctx, token)
	}
	r := a.req
	if a.of != nil {
		r = a.of(s)
	}
	answers, err := m.Call(ctx, s.conn, r)
	if err != nil {
		return fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
	}
	if len(answers) == 0 {
		return "ends without an answer"
	}
	switch first := answers[0].(type) {
	case *pb.SnapshotResponse:
		return "a snapshot"
	case *pb.LeaseTimeToLiveResponse:
		first.TTL = 0
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(first.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	}
	wire.Mask(answers[0])
	return strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(answers[0])), " ")
}

// same sends a request to both as a user (nobody, forger, or one who logs in) and
// compares.
func (p *pair) same(a ask, user string) {
	p.t.Helper()
	var got [2]string
	for i, s := range p.sides {
		got[i] = s.answer(p.ctx, a, p.token(s, user))
	}
	if got[0] != got[1] {
		p.t.Errorf("%s, %s, by %q:\n  etcd %s\n  %s  %s", a.rpc, a.what, user, got[0], p.sides[1].System.Name, got[1])
	}
}

const forger = "forger"

func password(user string) string { return user + "'s password" }

func (p *pair) token(s *side, user string) string {
	p.t.Helper()
	switch {
	case user == "":
		return ""
	case user == forger:
		return "forged"
	case s.tokens[user] == "":
		resp, err := pb.NewAuthClient(s.conn).Authenticate(p.ctx, &pb.AuthenticateRequest{Name: user, Password: password(user)})
		if err != nil {
			p.t.Fatalf("%s: login of %s: %v", s.System.Name, user, err)
		}
		s.tokens[user] = resp.Token
	}
	return s.tokens[user]
}

// must sends a request to both as root, and both must accept it.
func (p *pair) must(rpc string, m proto.Message) {
	p.t.Helper()
	for _, s := range p.sides {
		user := ""
		if len(s.tokens) > 0 {
			user = "root"
		}
		method, err := wire.Lookup(rpc)
		if err == nil {
			ctx := p.ctx
			if user != "" {
				ctx = wire.WithToken(ctx, p.token(s, user))
			}
			_, err = method.Call(ctx, s.conn, m)
		}
		if err != nil {
			p.t.Fatalf("%s: %s: %v", s.System.Name, rpc, err)
		}
	}
}

func perm(kind authpb.Permission_Type, key, end string) *authpb.Permission {
	return &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}
}

// users makes root; ann, who may read and write [a,c), read r, and write w; and
// idle, who has no role; and switches authentication on.
func (p *pair) users() {
	for _, u := range []string{"root", "ann", "idle"} {
		p.must("Auth/UserAdd", &pb.AuthUserAddRequest{Name: u, Password: password(u)})
	}
	p.must("Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "some"})
	for _, g := range []*authpb.Permission{perm(authpb.Permission_READWRITE, "a", "c"), perm(authpb.Permission_READ, "r", ""), perm(authpb.Permission_WRITE, "w", "")} {
		p.must("Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "some", Perm: g})
	}
	p.must("Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "ann", Role: "some"})
	p.must("Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	p.must("Auth/AuthEnable", &pb.AuthEnableRequest{})
	for _, s := range p.sides {
		p.token(s, "root")
	}
}
