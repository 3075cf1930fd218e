package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/server/porttest"
)

// side is a server that a script runs against, with controllers and a kubelet.
type side struct {
	name   string
	target Target
	log    string // file
	shell  *Shell
}

// startSide starts "etcd", "kvd" (a kube-apiserver over that store) or "resource"
// (kvd's own layer).
func startSide(ctx context.Context, t *testing.T, name, work string) *side {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	s := &side{name: name}
	var err error
	if name == "resource" {
		err = s.startLayer(ctx, t, dir)
	} else {
		err = s.startAPIServer(ctx, t, dir)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	controllers := Workloads
	if name != "resource" {
		controllers = append(append([]string(nil), Workloads...), Housekeeping...)
	}
	p, err := StartControllers(s.target, filepath.Join(dir, "controllers"), controllers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	watching, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- Kubelet(watching, s.target) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if s.shell, err = NewShell(s.target, filepath.Join(dir, "kubectl"), work); err != nil {
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
