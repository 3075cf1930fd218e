package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/compat/cluster"
)

// visitor is a client that shows a certificate, at one store.
type visitor struct {
	client *http.Client
	base   string
	token  string
}

// visitors have certificates of one user, at etcd and at the store under test.
func visitors(t *testing.T, certs *cluster.Certs, user string, pair [2]*cluster.Cluster) (out [2]*visitor) {
	t.Helper()
	for i, c := range pair {
		_, _, config, err := certs.Client(user)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{TLSClientConfig: config}
		t.Cleanup(transport.CloseIdleConnections)
		out[i] = &visitor{client: &http.Client{Transport: transport}, base: c.Members[0].ClientURL()}
	}
	return out
}

func sameTLS(t *testing.T, pair [2]*visitor, q request) {
	t.Helper()
	var got [2]answer
	for i, v := range pair {
		got[i] = q.sendBy(t, v.client, v.base, v.token)
		// Over TLS etcd's RPCs pass through net/http, which sends the headers of an
		// error apart from its status; the gateway then shows this one.
		if got[i].Code != http.StatusOK {
			delete(got[i].Header, "Grpc-Metadata-Content-Type")
		}
	}
	same(t, q, got[0], got[1])
}

// login gives the visitors tokens.
func login(t *testing.T, pair [2]*visitor, user, password string) {
	t.Helper()
	q := post("/v3/auth/authenticate", `{"name":"%s","password":"%s"}`, user, password)
	for _, v := range pair {
		resp, err := v.client.Post(v.base+q.path, "application/json", strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var a struct{ Token string }
		if err == nil {
			err = json.Unmarshal(b, &a)
		}
		if err != nil || a.Token == "" {
			t.Fatalf("%s: login of %s: %s, %v", v.base, user, b, err)
		}
		v.token = a.Token
	}
}

func startTLS(t *testing.T) (*cluster.Certs, [2]*cluster.Cluster) {
	t.Helper()
	certs, err := cluster.NewCerts(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	opt := cluster.Options{Certs: certs, Args: []string{"--bcrypt-cost=4"}}
	return certs, [2]*cluster.Cluster{startWith(t, "etcd", opt), startWith(t, storeName(), opt)}
}

// TestSameAnswersOverTLS plays the requests with a client certificate, and tries
// to get in without one.
func TestSameAnswersOverTLS(t *testing.T) {
	certs, pair := startTLS(t)
	guests := visitors(t, certs, "somebody", pair)
	for _, q := range requests {
		sameTLS(t, guests, q)
	}
	for _, v := range guests {
		transport := v.client.Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = nil
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Post(v.base+"/v3/kv/range", "application/json", strings.NewReader("{}"))
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: a client without a certificate gets %s", v.base, resp.Status)
		}
		plain := strings.Replace(v.base, "https", "http", 1)
		if resp, err := http.Post(plain+"/v3/kv/range", "application/json", strings.NewReader("{}")); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Errorf("%s: a client without TLS gets %s", v.base, resp.Status)
			}
		}
	}
}

// TestUsersOverTLS: the whole way of a user through the gateway, from the first
// account to a token in the header. The name in the certificate makes nobody a
// user here, not even root's (CVE-2018-16886).
func TestUsersOverTLS(t *testing.T) {
	certs, pair := startTLS(t)
	roots := visitors(t, certs, "root", pair)
	for _, q := range []request{
		post("/v3/auth/status", `{}`), post("/v3/auth/enable", `{}`),
		post("/v3/auth/user/add", `{"name":"root","password":"r"}`), post("/v3/auth/user/add", `{"name":"ann","password":"a"}`), post("/v3/auth/user/add", `{"name":"ann","password":"a"}`),
		post("/v3/auth/role/add", `{"name":"root"}`), post("/v3/auth/role/add", `{"name":"r"}`),
		post("/v3/auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"%s","range_end":"%s"}}`, b64("a"), b64("b")),
		post("/v3/auth/role/get", `{"role":"r"}`), post("/v3/auth/role/get", `{"role":"q"}`), post("/v3/auth/role/list", `{}`),
		post("/v3/auth/user/grant", `{"user":"root","role":"root"}`), post("/v3/auth/user/grant", `{"user":"ann","role":"r"}`),
		post("/v3/auth/user/get", `{"name":"ann"}`), post("/v3/auth/user/list", `{}`), post("/v3/auth/enable", `{}`), post("/v3/auth/status", `{}`),
		post("/v3/auth/authenticate", `{"name":"ann","password":"?"}`),
	} {
		sameTLS(t, roots, q)
	}
	asks := []request{
		post("/v3/kv/put", `{"key":"%s"}`, b64("a1")), post("/v3/kv/put", `{"key":"%s"}`, b64("x")), post("/v3/kv/range", `{"key":"%s","range_end":"%s"}`, b64("a"), b64("b")),
		post("/v3/kv/range", `{"key":"%s","range_end":"%s"}`, b64("a"), b64("\x00")), post("/v3/auth/user/list", `{}`), post("/v3/auth/user/get", `{"name":"ann"}`),
		post("/v3/lease/grant", `{"ID":"5","TTL":"600"}`), stream("/v3/lease/keepalive", 1, `{"ID":"5"}`), post("/v3/lease/revoke", `{"ID":"5"}`),
		stream("/v3/watch", 1, `{"create_request":{"key":"%s"}}`, b64("a")), stream("/v3/watch", 1, `{"create_request":{"key":"%s"}}`, b64("x")),
		post("/v3/maintenance/defragment", `{}`), post("/v3/maintenance/alarm", `{}`), post("/v3/kv/compaction", `{"revision":"99"}`),
		post("/v3/cluster/member/remove", `{"ID":"5"}`), post("/v3/lock/unlock", `{"key":"%s"}`, b64("a9")), post("/v3/auth/user/delete", `{"name":"root"}`),
	}
	for _, q := range asks {
		sameTLS(t, roots, q)
	}
	// A certificate without a name is let in.
	anns, forgers, strangers := visitors(t, certs, "", pair), visitors(t, certs, "", pair), visitors(t, certs, "", pair)
	roots = visitors(t, certs, "", pair)
	login(t, anns, "ann", "a")
	login(t, roots, "root", "r")
	for _, v := range forgers {
		v.token = "forged"
	}
	for _, who := range [][2]*visitor{strangers, forgers, anns, roots} {
		for _, q := range asks {
			sameTLS(t, who, q)
		}
	}
	for _, v := range anns {
		v.token = "Bearer " + v.token
	}
	sameTLS(t, anns, asks[0])
	sameTLS(t, roots, post("/v3/auth/disable", `{}`))
	sameTLS(t, strangers, asks[0])
}

// TestNobodyWithoutAccept: etcd 3.7.3 knows a request of its own gateway by the
// Accept header that the client sent. Without one it takes the caller for the
// user that the member's own certificate names (CVE-2018-16886, still). kvd
// carries no certificate of its own between its gateway and its services.
func TestNobodyWithoutAccept(t *testing.T) {
	certs, pair := startTLS(t)
	roots := visitors(t, certs, "root", pair)
	for _, q := range []request{
		post("/v3/auth/user/add", `{"name":"root","password":"r"}`), post("/v3/auth/user/grant", `{"user":"root","role":"root"}`),
		post("/v3/auth/user/add", `{"name":"%s","password":"r"}`, cluster.MemberName), post("/v3/auth/user/grant", `{"user":"%s","role":"root"}`, cluster.MemberName),
		post("/v3/auth/enable", `{}`),
	} {
		sameTLS(t, roots, q)
	}
	for i, v := range visitors(t, certs, "", pair) {
		resp, err := v.client.Post(v.base+"/v3/auth/user/list", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		name := pair[i].System.Name
		t.Logf("%s: %s %s", name, resp.Status, b)
		if refused := strings.Contains(string(b), "user name is empty"); refused == (name == "etcd") {
			t.Errorf("%s: %s", name, b)
		}
	}
}
