package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/server/certtest"
)

// fleet is three members under TLS, with one set of files for all of them.
type fleet struct {
	t     *testing.T
	certs string
	ca    *certtest.Authority
	sites []site
	procs []*process
	more  []string
}

func newFleet(t *testing.T) *fleet {
	f := planFleet(t)
	for i := range f.sites {
		f.start(i)
	}
	return f
}

// planFleet starts nobody yet.
func planFleet(t *testing.T, more ...string) *fleet {
	f := &fleet{t: t, certs: t.TempDir(), ca: certtest.New(t, "old"), sites: []site{newSite(t), newSite(t), newSite(t)}}
	f.ca.Issue("member", "127.0.0.1").Write(t, f.certs, "member")
	certtest.Write(t, f.certs, "ca.crt", f.ca.PEM())
	certtest.Write(t, f.certs, "crl", f.ca.Revoke())
	var initial []string
	for i, s := range f.sites {
		initial = append(initial, fmt.Sprintf("m%d=https://%s", i, s.peer))
	}
	f.more = append(more, "--initial-cluster="+strings.Join(initial, ","))
	for _, side := range []string{"", "peer-"} {
		f.more = append(f.more, "--"+side+"cert-file="+filepath.Join(f.certs, "member.crt"), "--"+side+"key-file="+filepath.Join(f.certs, "member.key"),
			"--"+side+"trusted-ca-file="+filepath.Join(f.certs, "ca.crt"), "--"+side+"client-cert-auth")
	}
	f.more = append(f.more, "--client-crl-file="+filepath.Join(f.certs, "crl"), "--peer-crl-file="+filepath.Join(f.certs, "crl"))
	f.procs = make([]*process, len(f.sites))
	return f
}

func (f *fleet) start(i int, more ...string) {
	f.t.Helper()
	args := f.sites[i].args(append(append([]string{fmt.Sprintf("--name=m%d", i)}, f.more...), more...)...)
	for j := range args {
		args[j] = strings.Replace(args[j], "-urls=http://", "-urls=https://", 1)
	}
	f.procs[i] = start(f.t, "", args...)
}

// dial connects as the owner of pair.
func (f *fleet) dial(i int, cfg *tls.Config) *grpc.ClientConn {
	f.t.Helper()
	conn, err := grpc.NewClient(f.sites[i].client, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

func clientTLS(t *testing.T, pair certtest.Pair, cas ...*certtest.Authority) *tls.Config {
	t.Helper()
	own, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }}
	for _, ca := range cas {
		cfg.RootCAs.AppendCertsFromPEM(ca.PEM())
	}
	return cfg
}

func putOver(conn *grpc.ClientConn, key string, wait bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(key)}, grpc.WaitForReady(wait))
	return err
}

// follower is a member that does not lead, and is not the first: clients are
// connected to that one.
func (f *fleet) follower(conn *grpc.ClientConn) int {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		f.t.Fatal(err)
	}
	members, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range members.Members {
		if i := int(m.Name[1] - '0'); m.ID != resp.Leader && i != 0 {
			return i
		}
	}
	f.t.Fatal("no follower")
	return 0
}

// restart kills a follower and waits until it serves again: with what the files
// hold now, it and its peers must find each other.
func (f *fleet) restart(when string, held *grpc.ClientConn, cfg *tls.Config) {
	f.t.Helper()
	i := f.follower(held)
	f.procs[i].signal(syscall.SIGKILL)
	f.procs[i].code()
	f.start(i)
	if err := putOver(f.dial(i, cfg), "restarted", true); err != nil {
		f.t.Fatalf("%s: member %d does not come back: %v", when, i, err)
	}
}

// writer puts over one connection until it is stopped. No put may fail.
type writer struct {
	stop chan struct{}
	wait sync.WaitGroup
	mu   sync.Mutex
	n    int
	err  error
}

func (f *fleet) write(conn *grpc.ClientConn) *writer {
	w := &writer{stop: make(chan struct{})}
	w.wait.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			err := putOver(conn, fmt.Sprintf("w%d", w.n), false)
			w.mu.Lock()
			w.n++
			w.err = errors.Join(w.err, err)
			w.mu.Unlock()
		}
	})
	return w
}

// TestRotationUnderLoad replaces the pair, then the CA, then the list of
// revocations of a running cluster, while a client writes without a break and
// members come and go.
func TestRotationUnderLoad(t *testing.T) {
	f := newFleet(t)
	alice, mallory := f.ca.Issue("alice"), f.ca.Issue("mallory")
	held := f.dial(0, clientTLS(t, alice, f.ca))
	if err := putOver(held, "first", true); err != nil {
		t.Fatal(err)
	}
	w := f.write(held)

	f.ca.Issue("member", "127.0.0.1").Write(t, f.certs, "member")
	f.restart("after new pairs", held, clientTLS(t, alice, f.ca))

	young := certtest.New(t, "young")
	both := func(pair certtest.Pair) *tls.Config { return clientTLS(t, pair, f.ca, young) }
	certtest.Write(t, f.certs, "ca.crt", append(f.ca.PEM(), young.PEM()...))
	f.restart("with both CAs", held, both(alice))
	young.Issue("member", "127.0.0.1").Write(t, f.certs, "member")
	f.restart("with pairs of the new CA", held, both(alice))
	certtest.Write(t, f.certs, "ca.crt", young.PEM())
	bob, eve := young.Issue("bob"), young.Issue("eve")
	f.restart("with the new CA alone", held, clientTLS(t, bob, young))
	if err := putOver(f.dial(0, both(mallory)), "x", false); status.Code(err) != codes.Unavailable {
		t.Errorf("the old CA still counts: %v", err)
	}

	connected := f.dial(0, clientTLS(t, eve, young))
	if err := putOver(connected, "eve", true); err != nil {
		t.Fatal(err)
	}
	certtest.Write(t, f.certs, "crl", young.Revoke(eve))
	for deadline := time.Now().Add(patience); putOver(connected, "eve", false) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a revoked client goes on writing")
		}
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: clientTLS(t, eve, young)}}
	if resp, err := client.Get("https://" + f.sites[1].client + "/health"); err == nil {
		resp.Body.Close()
		t.Errorf("a revoked client is served over HTTP: %s", resp.Status)
	}
	close(w.stop)
	w.wait.Wait()
	if w.err != nil || w.n < 50 {
		t.Errorf("%d puts over the held connection: %v", w.n, w.err)
	}
	for i, p := range f.procs {
		p.signal(syscall.SIGTERM)
		if code := p.code(); code != exitOK {
			t.Errorf("member %d ends with %d", i, code)
		}
	}
}

// TestStrangerAmongPeers starts a member with a certificate that the others do
// not accept. It stays alone, and both sides say why, once a minute.
func TestStrangerAmongPeers(t *testing.T) {
	f := newFleet(t)
	alice := f.ca.Issue("alice")
	held := f.dial(0, clientTLS(t, alice, f.ca))
	if err := putOver(held, "first", true); err != nil {
		t.Fatal(err)
	}
	i := f.follower(held)
	f.procs[i].signal(syscall.SIGKILL)
	f.procs[i].code()
	revoked := f.ca.Issue("revoked", "127.0.0.1")
	cert, key := revoked.Write(t, f.certs, "revoked")
	certtest.Write(t, f.certs, "crl", f.ca.Revoke(revoked))
	f.start(i, "--peer-cert-file="+cert, "--peer-key-file="+key)
	f.procs[i].says("cannot connect to a peer")
	if err := putOver(held, "second", true); err != nil {
		t.Error(err)
	}
	for j, p := range f.procs {
		if j != i {
			p.says("certificate revoked")
			if n := strings.Count(p.output.String(), "refused a connection"); n > 1 {
				t.Errorf("member %d says so %d times", j, n)
			}
		}
	}
	if strings.Contains(f.procs[i].output.String(), `"msg":"ready to serve client requests"`) {
		t.Error("the stranger serves clients")
	}
}

// TestAutoTLSProcess is etcd's quickest secure start.
func TestAutoTLSProcess(t *testing.T) {
	s := newSite(t)
	args := s.args("--auto-tls", "--peer-auto-tls")
	for i := range args {
		args[i] = strings.Replace(args[i], "-urls=http://", "-urls=https://", 1)
	}
	start(t, "", args...)
	f := &fleet{t: t, sites: []site{s}}
	if err := putOver(f.dial(0, &tls.Config{InsecureSkipVerify: true}), "a", true); err != nil {
		t.Error(err)
	}
}
