package kube

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// world is a store of three members with a kube-apiserver over it and kubectl in
// front.
type world struct {
	store   *cluster.Cluster
	certs   *cluster.Certs
	server  *APIServer
	kubectl *Kubectl
	kvctl   *Kvctl
}

// startLimit is for a busy machine.
const startLimit = 3 * time.Minute

func start(ctx context.Context, t *testing.T, args ...string) *world {
	t.Helper()
	dir := t.TempDir()
	sys, err := cluster.UnderTest()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{}
	if w.certs, err = cluster.NewCerts(filepath.Join(dir, "certs")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if w.store, err = cluster.Start(ctx, sys, cluster.Options{Members: 3, Dir: dir, Certs: w.certs}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.store.Close)
	opt := Options{Store: w.store, Certs: w.certs, Dir: filepath.Join(dir, "apiserver"), Args: args}
	if w.server, err = StartAPIServer(ctx, opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Kill)
	if w.kubectl, err = NewKubectl(w.server.Target, filepath.Join(dir, "kubectl")); err != nil {
		t.Fatal(err)
	}
	if w.kvctl, err = NewKvctl(w.store, w.certs, filepath.Join(dir, "kvctl")); err != nil {
		t.Fatal(err)
	}
	return w
}
