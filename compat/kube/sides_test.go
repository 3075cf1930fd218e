package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/server/porttest"
)

// side is a server that a script runs against, with controllers and a kubelet.
type side struct {
	name   string
	dir    string
	target Target
	log    string // file
	shell  *Shell
}

// startServer starts "etcd", "kvd" (a kube-apiserver over that store) or "resource"
// (kvd's own layer), with some controllers, and those that the layer has itself.
func startServer(ctx context.Context, t *testing.T, name string, controllers ...string) *side {
	t.Helper()
	s := &side{name: name, dir: filepath.Join(t.TempDir(), name)}
	var err error
	if name == "resource" {
		err = s.startLayer(ctx, t, s.dir)
	} else {
		err = s.startAPIServer(ctx, t, s.dir)
		controllers = slices.Concat(controllers, Housekeeping)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(controllers) == 0 {
		return s
	}
	p, err := StartControllers(s.target, filepath.Join(s.dir, "controllers"), controllers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return s
}

// startSide starts a server with workloads' controllers, a kubelet and kubectl.
func startSide(ctx context.Context, t *testing.T, name, work string) *side {
	t.Helper()
	s := startServer(ctx, t, name, Workloads...)
	watching, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- Kubelet(watching, s.target) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var err error
	if s.shell, err = NewShell(s.target, filepath.Join(s.dir, "kubectl"), work); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.shell.Close)
	return s
}

func (s *side) startAPIServer(ctx context.Context, t *testing.T, dir string) error {
	certs, err := cluster.NewCerts(filepath.Join(dir, "certs"))
	if err != nil {
		return err
	}
	sys, err := cluster.Lookup(s.name)
	if err != nil {
		return err
	}
	store, err := cluster.Start(ctx, sys, cluster.Options{Dir: dir, NoSync: true})
	if err != nil {
		return err
	}
	t.Cleanup(store.Close)
	server, err := StartAPIServer(ctx, Options{Store: store, Certs: certs, Dir: filepath.Join(dir, "apiserver")})
	if err != nil {
		return err
	}
	t.Cleanup(server.Kill)
	s.target, s.log = server.Target, server.LogPath()
	return nil
}

func (s *side) startLayer(ctx context.Context, t *testing.T, dir string) error {
	sys, err := cluster.UnderTest()
	if err != nil {
		return err
	}
	certs, err := cluster.NewCerts(filepath.Join(dir, "certs"))
	if err != nil {
		return err
	}
	port, err := porttest.Claim()
	if err != nil {
		return err
	}
	tokens, err := WriteTokens(dir)
	if err != nil {
		return err
	}
	s.target = Target{URL: fmt.Sprintf("https://127.0.0.1:%d", port), CA: certs.CA, Token: TokenOf("admin")}
	store, err := cluster.Start(ctx, sys, cluster.Options{Dir: dir, NoSync: true, Certs: certs, Args: []string{
		"--listen-resource-urls", s.target.URL, "--resource-token-auth-file", tokens, "--resource-authorization-mode", "RBAC",
		"--resource-service-cluster-ip-range", "10.0.0.0/16",
		// A token is enough: with an authority for clients, TLS asks for a certificate.
		"--client-cert-auth=false", "--trusted-ca-file=",
	}})
	if err != nil {
		return err
	}
	t.Cleanup(store.Close)
	s.log = store.Members[0].LogPath()
	return s.target.Ready(ctx, store.Members[0].Exited())
}

// otherSide is what the script is compared with: RIGHT names it.
func otherSide() (string, error) {
	switch name := os.Getenv("RIGHT"); name {
	case "":
		return "resource", nil
	case "resource", "kvd", "etcd":
		return name, nil
	}
	return "", errors.New("RIGHT is resource, kvd or etcd")
}
