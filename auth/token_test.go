package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/bcrypt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

func tokenWorld(t *testing.T) (*world, *clock.Fake, TokenConfig) {
	w := newWorld(t)
	w.user("root", "root")
	w.user("ann")
	w.must(w.s.Enable([]byte("the secret of the cluster")))
	fake := clock.NewFake(time.Unix(1_700_000_000, 0))
	nonce := uint64(0)
	return w, fake, TokenConfig{
		Spec: "simple", TTL: time.Minute, Cluster: 7, Clock: fake, Nonce: func() uint64 { nonce++; return nonce },
		Warn: func(string, ...any) {},
	}
}

func mustTokens(t *testing.T, cfg TokenConfig) Tokens {
	t.Helper()
	tokens, err := NewTokens(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func mustAssign(t *testing.T, tokens Tokens, s *State, user string) string {
	t.Helper()
	token, err := tokens.Assign(s, user)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSimpleTokensWorkOnEveryMember(t *testing.T) {
	w, fake, cfg := tokenWorld(t)
	here, there := mustTokens(t, cfg), mustTokens(t, cfg)
	token := mustAssign(t, here, w.s, "ann")
	for _, m := range []Tokens{here, there, mustTokens(t, cfg)} { // the last one has just been started
		if who, ok := m.Resolve(w.s, token); !ok || who != (Principal{"ann", w.s.Revision}) {
			t.Errorf("resolves to %+v, %v", who, ok)
		}
	}
	// Other changes of users do not end it; its principal follows the revision.
	w.user("bob")
	if who, ok := here.Resolve(w.s, token); !ok || who.Revision != w.s.Revision {
		t.Errorf("after another user's change: %+v, %v", who, ok)
	}
	if mustAssign(t, here, w.s, "ann") == token {
		t.Error("two logins of a second yield one token")
	}
	// Used now and then it lives on where it is used, and not elsewhere.
	for range 5 {
		fake.Advance(40 * time.Second)
		if _, ok := here.Resolve(w.s, token); !ok {
			t.Fatal("a used token ended")
		}
	}
	if _, ok := mustTokens(t, cfg).Resolve(w.s, token); ok {
		t.Error("an old token works on a member that does not know it")
	}
	fake.Advance(time.Minute)
	if _, ok := here.Resolve(w.s, token); ok {
		t.Error("a token works that was unused for its time")
	}
}

func TestSimpleTokensEnd(t *testing.T) {
	for name, end := range map[string]func(w *world, cfg *TokenConfig){
		"password": func(w *world, _ *TokenConfig) {
			w.must(w.s.UserChangePassword(&pb.AuthUserChangePasswordRequest{Name: "ann", HashedPassword: hashed("other")}))
		},
		"deleted": func(w *world, _ *TokenConfig) { w.must(w.s.UserDelete(&pb.AuthUserDeleteRequest{Name: "ann"})) },
		"made again": func(w *world, _ *TokenConfig) {
			w.must(w.s.UserDelete(&pb.AuthUserDeleteRequest{Name: "ann"}))
			w.must(w.s.UserAdd(&pb.AuthUserAddRequest{Name: "ann", HashedPassword: hashed("same password, other salt")}))
		},
		"off and on": func(w *world, _ *TokenConfig) {
			w.must(w.s.Disable())
			w.must(w.s.Enable([]byte("a new secret")))
		},
		"another cluster": func(_ *world, cfg *TokenConfig) { cfg.Cluster++ },
	} {
		w, _, cfg := tokenWorld(t)
		tokens := mustTokens(t, cfg)
		token := mustAssign(t, tokens, w.s, "ann")
		end(w, &cfg)
		if cfg.Cluster == 7 { // the member that gave it out remembers it
			if who, ok := tokens.Resolve(w.s, token); ok {
				t.Errorf("%s: still %+v", name, who)
			}
		}
		if who, ok := mustTokens(t, cfg).Resolve(w.s, token); ok {
			t.Errorf("%s: elsewhere still %+v", name, who)
		}
	}
}

func TestForgedSimpleTokens(t *testing.T) {
	w, _, cfg := tokenWorld(t)
	tokens := mustTokens(t, cfg)
	token := mustAssign(t, tokens, w.s, "ann")
	for i := range token {
		forged := []byte(token)
		forged[i] ^= 1
		if _, ok := mustTokens(t, cfg).Resolve(w.s, string(forged)); ok {
			t.Fatalf("byte %d can be changed", i)
		}
	}
	for _, bad := range []string{"", "x", token[:len(token)-1], token + "A", "abcdefghijklmnop.12", strings.Repeat("A", maxToken+1)} {
		if _, ok := tokens.Resolve(w.s, bad); ok {
			t.Errorf("%.40q works", bad)
		}
	}
	if _, err := tokens.Assign(w.s, "nobody"); err == nil {
		t.Error("a token for a user who does not exist")
	}
}

func FuzzSimpleToken(f *testing.F) {
	w := newWorld(&testing.T{})
	w.s.Enabled, w.s.secret = true, []byte("s")
	tokens := newSimpleTokens(TokenConfig{Clock: clock.NewFake(time.Unix(1, 0)), Nonce: func() uint64 { return 1 }})
	f.Add("AQAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if who, ok := tokens.Resolve(w.s, token); ok {
			t.Fatalf("%q is %+v's", token, who)
		}
	})
}

// keyFiles are named by what they hold.
type keyFiles map[string][]byte

func (f keyFiles) read(name string) ([]byte, error) {
	if b, ok := f[name]; ok {
		return b, nil
	}
	return nil, errors.New("no such file")
}

func pemKeys(t *testing.T) keyFiles {
	t.Helper()
	r, err1 := rsa.GenerateKey(rand.Reader, 2048)
	other, err2 := rsa.GenerateKey(rand.Reader, 2048)
	e, err3 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	edPub, ed, err4 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	private := func(k any) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
	}
	public := func(k any) []byte {
		b, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
	}
	return keyFiles{
		"rsa": private(r), "rsa.pub": public(&r.PublicKey), "other.pub": public(&other.PublicKey),
		"ec": private(e), "ec.pub": public(&e.PublicKey), "ed": private(ed), "ed.pub": public(edPub),
		"hmac": []byte("a shared key"),
	}
}

func TestJWT(t *testing.T) {
	w, fake, cfg := tokenWorld(t)
	files := pemKeys(t)
	cfg.Read = files.read
	signed := map[string]string{}
	for method, keys := range map[string]string{
		"RS256": "pub-key=rsa.pub,priv-key=rsa", "PS512": "priv-key=rsa", "ES256": "pub-key=ec.pub,priv-key=ec",
		"EdDSA": "pub-key=ed.pub,priv-key=ed", "HS256": "priv-key=hmac",
	} {
		cfg.Spec = "jwt,sign-method=" + method + ",ttl=90s," + keys
		tokens := mustTokens(t, cfg)
		token := mustAssign(t, tokens, w.s, "ann")
		signed[method] = token
		if who, ok := mustTokens(t, cfg).Resolve(w.s, token); !ok || who != (Principal{"ann", w.s.Revision}) {
			t.Errorf("%s: resolves to %+v, %v", method, who, ok)
		}
		if !tokens.Pinned() {
			t.Errorf("%s: the revision is not the token's own", method)
		}
	}
	cfg.Spec = "jwt,sign-method=RS256,pub-key=rsa.pub"
	verify := mustTokens(t, cfg)
	if _, ok := verify.Resolve(w.s, signed["RS256"]); !ok {
		t.Error("a public key alone does not verify")
	}
	if _, err := verify.Assign(w.s, "ann"); err != error(api.ErrVerifyOnly) {
		t.Errorf("a public key signs: %v", err)
	}
	for method, token := range signed {
		if _, ok := verify.Resolve(w.s, token); ok && method != "RS256" {
			t.Errorf("a token of %s is taken for one of RS256", method)
		}
	}
	// The public key is no shared secret: the oldest trick with JWT.
	trick := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"username": "root", "revision": 9})
	if token, err := trick.SignedString(files["rsa.pub"]); err != nil {
		t.Fatal(err)
	} else if _, ok := verify.Resolve(w.s, token); ok {
		t.Error("a token signed with the public key is taken")
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"username": "root", "revision": 9}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := verify.Resolve(w.s, none); ok {
		t.Error("a token without signature is taken")
	}
	fake.Advance(2 * time.Minute)
	if _, ok := verify.Resolve(w.s, signed["RS256"]); ok {
		t.Error("a token works after its end")
	}
}

func TestTokenSpecs(t *testing.T) {
	_, _, cfg := tokenWorld(t)
	cfg.Read = pemKeys(t).read
	for _, bad := range []string{
		"basic", "simple,ttl", "jwt", "jwt,sign-method=none", "jwt,sign-method=RS256", "jwt,sign-method=RS256,pub-key=missing",
		"jwt,sign-method=RS256,pub-key=other.pub,priv-key=rsa", "jwt,sign-method=RS256,priv-key=ec", "jwt,sign-method=HS256,pub-key=hmac",
		"jwt,sign-method=HS256,priv-key=hmac,ttl=-1s", "jwt,sign-method=HS256,priv-key=hmac,ttl=x", "jwt,sign-method=HS256,sign-method=HS256",
	} {
		cfg.Spec = bad
		if _, err := NewTokens(cfg); !errors.Is(err, ErrTokenSpec) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"", "simple", "simple,some=thing", "jwt,sign-method=HS256,priv-key=hmac,color=red"} {
		cfg.Spec = good
		mustTokens(t, cfg)
	}
}

func TestPasswords(t *testing.T) {
	p := NewPasswords(bcrypt.MinCost, []byte("0123456789abcdef"))
	ctx := context.Background()
	hash, err := p.Hash(ctx, "open sesame")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // from bcrypt, then from memory
		if err := p.Verify(ctx, "ann", hash, "open sesame"); err != nil {
			t.Errorf("the right password: %v", err)
		}
		if err := p.Verify(ctx, "ann", hash, "open barley"); err != error(api.ErrAuthFailed) {
			t.Errorf("a wrong password: %v", err)
		}
		if err := p.Verify(ctx, "gone", nil, "open sesame"); err != error(api.ErrAuthFailed) {
			t.Errorf("no such user: %v", err)
		}
	}
	again, err := p.Hash(ctx, "open sesame")
	if err != nil || string(again) == string(hash) {
		t.Errorf("two hashes of one password are equal (%v)", err)
	}
	if len(p.mu.verified) != 1 {
		t.Errorf("%d outcomes are remembered, want the one success", len(p.mu.verified))
	}
	if _, err := p.Hash(ctx, strings.Repeat("x", 73)); !errors.Is(err, bcrypt.ErrPasswordTooLong) {
		t.Errorf("73 bytes: %v", err)
	}
}

// TestPasswordsAreBounded: while the turns are taken, callers wait, more than the
// queue holds are refused, and one that leaves makes room.
func TestPasswordsAreBounded(t *testing.T) {
	p := NewPasswords(bcrypt.MinCost, []byte("0123456789abcdef"))
	ctx, cancel := context.WithCancel(context.Background())
	for range maxHashing {
		if err := p.wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var wait sync.WaitGroup
	outcome := make(chan error, 2*maxWaiting)
	for range 2 * maxWaiting {
		wait.Go(func() { _, err := p.Hash(ctx, "x"); outcome <- err })
	}
	for range maxWaiting {
		if err := <-outcome; err != error(api.ErrTooManyRequests) {
			t.Fatalf("got %v", err)
		}
	}
	cancel()
	wait.Wait()
	for range maxWaiting {
		if err := <-outcome; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	}
	for range maxHashing {
		p.leave()
	}
	if len(p.queue) != 0 || len(p.turn) != 0 {
		t.Errorf("%d places and %d turns are never given back", len(p.queue), len(p.turn))
	}
}

func TestThrottle(t *testing.T) {
	fake := clock.NewFake(time.Unix(1_700_000_000, 0))
	th := NewThrottle(fake, 3)
	fail := func(n int) {
		for range n {
			th.Failed("ann", "here")
		}
	}
	fail(2)
	if !th.Allow("ann", "here") {
		t.Error("throttled before the free failures are used up")
	}
	fail(1)
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if th.Allow("ann", "here") || !th.Allow("ann", "there") || !th.Allow("bob", "here") {
			t.Fatal("the pause is not for this user and client alone")
		}
		fake.Advance(pause - time.Millisecond)
		if th.Allow("ann", "here") {
			t.Errorf("allowed before %v have passed", pause)
		}
		fake.Advance(time.Millisecond)
		if !th.Allow("ann", "here") {
			t.Errorf("not allowed after %v", pause)
		}
		fail(1)
	}
	fail(40)
	fake.Advance(maxPause)
	if !th.Allow("ann", "here") {
		t.Error("the pause has no bound")
	}
	th.Passed("ann", "here")
	fail(2)
	if !th.Allow("ann", "here") {
		t.Error("failures before a success count")
	}
	for i := range 3 * maxThrottled {
		th.Failed("u", string(rune(i)))
	}
	if n := len(th.mu.failed); n > maxThrottled {
		t.Errorf("%d pairs are remembered", n)
	}
	off := NewThrottle(fake, 0)
	off.Failed("ann", "here")
	if !off.Allow("ann", "here") {
		t.Error("throttled although it is off")
	}
}
