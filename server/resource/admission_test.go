package resource

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

type oneToken struct{}

func (oneToken) Lookup(token string) (*User, bool) {
	return &User{Name: "bearer", Groups: []string{"g"}}, token == "t"
}

// TestIdentity says who sends a request by its token or its certificate.
func TestIdentity(t *testing.T) {
	certificate := func(name pkix.Name) *tls.ConnectionState {
		return &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: name}}}}
	}
	ann := certificate(pkix.Name{CommonName: "ann", Organization: []string{"devs", "ops"}})
	for name, c := range map[string]struct {
		tls       *tls.ConnectionState
		token     string
		authorize bool
		want      string
	}{
		"nobody":                      {nil, "", true, "system:anonymous [system:unauthenticated]"},
		"a certificate":               {ann, "", true, "ann [devs ops system:authenticated]"},
		"one that was not verified":   {&tls.ConnectionState{PeerCertificates: ann.VerifiedChains[0]}, "", true, "system:anonymous [system:unauthenticated]"},
		"one without a name":          {certificate(pkix.Name{}), "", true, "system:anonymous [system:unauthenticated]"},
		"a token":                     {nil, "t", true, "bearer [g system:authenticated]"},
		"a token counts before":       {ann, "t", true, "bearer [g system:authenticated]"},
		"a wrong token is refused":    {ann, "wrong", true, "Unauthorized"},
		"unless everybody may do all": {ann, "wrong", false, "ann [devs ops system:authenticated]"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		r.TLS = c.tls
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		u, err := (&call{r: r, layer: &Layer{cfg: Config{Tokens: oneToken{}, Authorize: c.authorize}}}).authenticate()
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprint(u.Name, " ", u.Groups)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestPlaces lets in as many of a class as there is room for: the rest come back
// later, and no class takes another's room.
func TestPlaces(t *testing.T) {
	room := func() chan struct{} { return make(chan struct{}, 1) }
	p := places{room(), room(), room(), room()}
	classes := []call{{verb: "list"}, {verb: "patch"}, {verb: "update", Target: Target{Group: "coordination.k8s.io"}}, {verb: "watch"}}
	for i := range classes {
		leave, err := p.enter(&classes[i])
		if err != nil {
			t.Fatalf("%s: %v", classes[i].verb, err)
		}
		_, err = p.enter(&classes[i])
		f := asFailure(err)
		if f == nil || f.Code != http.StatusTooManyRequests {
			t.Fatalf("%s, again: %v", classes[i].verb, err)
		}
		w := httptest.NewRecorder()
		(&call{ctx: t.Context(), w: w, r: httptest.NewRequest(http.MethodGet, "/", nil), layer: &Layer{}}).fail(err)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		defer leave()
	}
	leave, err := (&places{room(), room(), room(), room()}).enter(&classes[0])
	if err != nil {
		t.Fatal(err)
	}
	leave()
}
