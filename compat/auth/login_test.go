package auth

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// ask both as the holder of a token that the one or the other gave.
func (p *pair) held(a ask, tokens [2]string) (got [2]string) {
	for i, s := range p.sides {
		got[i] = s.answer(p.ctx, a, tokens[i])
	}
	return got
}

func (p *pair) tokensOf(user string) (out [2]string) {
	p.t.Helper()
	for i, s := range p.sides {
		delete(s.tokens, user)
		out[i] = p.token(s, user)
	}
	return out
}

var (
	readA        = req("KV/Range", "a", get("a", ""))
	memberStatus = req("Maintenance/Status", "", &pb.StatusRequest{})
)

const (
	invalid = "Unauthenticated: etcdserver: invalid auth token"
	old     = "InvalidArgument: etcdserver: revision of auth store is old"
)

// TestTokenEnds: a simple token lives as long as it is used often enough.
func TestTokenEnds(t *testing.T) {
	t.Parallel() // it waits
	const ttl = 2 * time.Second
	p := start(t, cluster.Options{Args: []string{"--auth-token-ttl=2"}})
	p.users()
	tokens := p.tokensOf("ann")
	for began, last := time.Now(), time.Now(); time.Since(began) < 2*ttl; {
		time.Sleep(ttl / 6)
		got := p.held(readA, tokens)
		if time.Since(last) > ttl/2 { // a slow machine; they may be over
			tokens, began = p.tokensOf("ann"), time.Now()
		} else if got[0] != got[1] || got[0] == invalid {
			t.Fatalf("in use: %q", got)
		}
		last = time.Now()
	}
	// etcd looks for tokens that are over now and then only. Looking is using.
	for i, s := range p.sides {
		for wait := ttl + time.Second; p.held(readA, tokens)[i] != invalid; wait += ttl {
			if wait > 5*ttl {
				t.Fatalf("%s: the token lives on without being used", s.System.Name)
			}
			time.Sleep(wait)
		}
	}
	if got := p.held(readA, p.tokensOf("ann")); got[0] != got[1] {
		t.Errorf("after a new login: %q", got)
	}
}

// TestTokenEverywhere: what a login at one member yields is good at all, with the
// next request.
func TestTokenEverywhere(t *testing.T) {
	p := start(t, cluster.Options{Members: 3})
	p.users()
	for _, s := range p.sides {
		for i, at := range s.Members {
			conn, err := at.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			resp, err := pb.NewAuthClient(conn).Authenticate(p.ctx, &pb.AuthenticateRequest{Name: "ann", Password: password("ann")})
			if err != nil {
				t.Fatalf("%s: login at member %d: %v", s.System.Name, i, err)
			}
			for j, other := range s.Members {
				conn, err := other.Dial()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				elsewhere := &side{conn: conn}
				if got := elsewhere.answer(p.ctx, readA, resp.Token); got != s.answer(p.ctx, readA, p.token(s, "ann")) {
					t.Errorf("%s: a token of member %d at member %d: %s", s.System.Name, i, j, got)
				}
			}
		}
	}
}

// TestJWT: both have one key, so each takes the other's tokens for its own. A
// token ends with the next change of users or roles, and with its time.
func TestJWT(t *testing.T) {
	t.Parallel() // it waits
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a key that both know"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, cluster.Options{Args: []string{"--auth-token=jwt,sign-method=HS256,ttl=6s,priv-key=" + key}})
	p.users()
	tokens := p.tokensOf("ann")
	crossed := [2]string{tokens[1], tokens[0]}
	allowed := p.held(readA, tokens)
	if got := p.held(readA, crossed); got != allowed || got[0] != got[1] {
		t.Errorf("own tokens: %q, each other's: %q", allowed, got)
	}
	tampered := [2]string{tokens[0] + "x", tokens[1] + "x"}
	if got := p.held(readA, tampered); got != [2]string{invalid, invalid} {
		t.Errorf("changed tokens: %q", got)
	}
	// {"alg":"none"} and {"username":"root","revision":1}
	unsigned := "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MX0."
	if got := p.held(readA, [2]string{unsigned, unsigned}); got != [2]string{invalid, invalid} {
		t.Errorf("unsigned tokens: %q", got)
	}
	p.must("Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "a change"})
	if got := p.held(readA, tokens); got != [2]string{old, old} {
		t.Errorf("tokens of before a change: %q", got)
	}
	if got := p.held(memberStatus, tokens); got[0] != got[1] {
		t.Errorf("status with tokens of before a change: %q", got)
	}
	for deadline := time.Now().Add(time.Minute); p.held(readA, tokens) != [2]string{invalid, invalid}; {
		if time.Now().After(deadline) {
			t.Fatalf("tokens whose time is over: %q", p.held(readA, tokens))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// TestPasswordPolicy: kvd refuses the empty password (CVE-2020-15115), which etcd
// accepts.
func TestPasswordPolicy(t *testing.T) {
	p := start(t, cluster.Options{})
	const refused = "InvalidArgument: "
	add := req("Auth/UserAdd", "without password", &pb.AuthUserAddRequest{Name: "u"})
	got := p.held(add, [2]string{})
	if got[0] != "header:{revision:1}" || len(got[1]) <= len(refused) || got[1][:len(refused)] != refused {
		if p.sides[1].System.Name == "kvd" {
			t.Errorf("got %q", got)
		}
	}
}
