package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/certtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvctl": kvctlMain, "member": memberMain})
}

// kvctlMain is main, but that it asks the test's name server.
func kvctlMain() {
	if server := os.Getenv("TEST_DNS"); server != "" {
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", server)
		}}
	}
	main()
}

// memberMain is a kvd for scripts: member DIR NAME PEER-URL CLIENT-URL
// INITIAL-CLUSTER joins a cluster until it is interrupted.
func memberMain() {
	dir, name, peer, client, cluster := os.Args[1], os.Args[2], mustURL(os.Args[3]), mustURL(os.Args[4]), os.Args[5]
	cfg := testConfig(name, dir, peer, client)
	cfg.InitialCluster, cfg.NewCluster, cfg.Seed = cluster, false, uint64(time.Now().UnixNano())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s, err := server.New(cfg)
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func mustURL(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return *u
}

// testConfig is a member that is quick and syncs nothing.
func testConfig(name, dir string, peer, client url.URL) server.Config {
	cfg := server.DefaultConfig()
	cfg.Name, cfg.DataDir = name, dir
	cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = []url.URL{peer}, []url.URL{peer}
	cfg.ListenClientURLs, cfg.AdvertiseClientURLs = []url.URL{client}, []url.URL{client}
	cfg.HeartbeatInterval, cfg.ElectionTimeout = 20*time.Millisecond, 200*time.Millisecond
	cfg.UnsafeNoSync, cfg.BcryptCost = true, 4
	cfg.Clock, cfg.FS, cfg.Logger = clock.System(), server.WithoutSync(vfs.OS()), slog.New(slog.DiscardHandler)
	return cfg
}

// TestScripts runs testdata/*.txtar, each against a cluster of its own: of three
// members if the name begins with "three", of none if it begins with "offline",
// else of one, which wants TLS if the name begins with "tls", and holds Kubernetes
// objects if it begins with "objects". $ENDPOINT is the first member's, $ENDPOINTS all. $FREE_PEER and $FREE_CLIENT are URLs at which
// nobody listens.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup:               setupScript,
	})
}

func setupScript(e *testscript.Env) error {
	e.Setenv("GORACE", "atexit_sleep_ms=0") // else every kvctl sleeps a second before it exits
	tb := e.T().(testing.TB)
	name := tb.Name()[strings.LastIndexByte(tb.Name(), '/')+1:]
	n := 1
	switch {
	case strings.HasPrefix(name, "three"):
		n = 3
	case strings.HasPrefix(name, "offline"):
		return nil
	}
	peer, client := freeURL(tb), freeURL(tb)
	e.Setenv("FREE_PEER", peer.String())
	e.Setenv("FREE_CLIENT", client.String())
	list := plan(tb, n, tb.TempDir())
	if strings.HasPrefix(name, "tls") {
		secure(tb, &list[0], e.WorkDir)
		e.Setenv("ENDPOINT", start(tb, list[0]).endpoint())
		return nil
	}
	_, all := endpoints(tb, list)
	first, _, _ := strings.Cut(all, ",")
	e.Setenv("ENDPOINT", first)
	e.Setenv("ENDPOINTS", all)
	e.Setenv("KVCTL_ENDPOINTS", first)
	switch {
	case strings.HasPrefix(name, "discovery"):
		e.Setenv("TEST_DNS", serveDNS(tb, first))
	case strings.HasPrefix(name, "objects"):
		putObjects(tb, first)
	}
	return nil
}

// secure makes a member want certificates: those that it leaves in dir, as
// client.crt, client.key and ca.crt.
func secure(t testing.TB, cfg *server.Config, dir string) {
	ca := certtest.New(t, "ca")
	cfg.ClientTLS.CertFile, cfg.ClientTLS.KeyFile = ca.Issue("member", "127.0.0.1").Write(t, t.TempDir(), "server")
	cfg.ClientTLS.TrustedCAFile, cfg.ClientTLS.ClientCertAuth = certtest.Write(t, dir, "ca.crt", ca.PEM()), true
	cfg.ListenClientURLs[0].Scheme, cfg.AdvertiseClientURLs[0].Scheme = "https", "https"
	ca.Issue("operator").Write(t, dir, "client")
	certtest.Write(t, filepath.Clean(dir), "other.crt", certtest.New(t, "another").PEM())
}

// putObjects writes the objects that the tests of api/kinds have, as a
// kube-apiserver does.
func putObjects(t testing.TB, endpoint string) {
	t.Helper()
	text, err := os.ReadFile("../../api/kinds/testdata/registry.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		if out := kvctl(t, string(b), "--endpoints", endpoint, "put", key); out.code != exitOK {
			t.Fatalf("%s: %s", key, out.errs)
		}
	}
}
