package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/porttest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// member is one member of a cluster in this process.
type member struct {
	cfg    server.Config
	cancel context.CancelFunc
	done   chan error
}

func freeURL(t testing.TB) url.URL {
	port, err := porttest.Claim()
	if err != nil {
		t.Fatal(err)
	}
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

// plan makes configurations for members m0, m1, … whose data is below dir.
func plan(t testing.TB, n int, dir string) []server.Config {
	var list []server.Config
	var initial []string
	for i := range n {
		name := fmt.Sprint("m", i)
		cfg := testConfig(name, filepath.Join(dir, name), freeURL(t), freeURL(t))
		initial = append(initial, name+"="+cfg.AdvertisePeerURLs[0].String())
		list = append(list, cfg)
	}
	for i := range list {
		list[i].InitialCluster = strings.Join(initial, ",")
	}
	return list
}

// start runs a member until the test, or stop, ends it.
func start(t testing.TB, cfg server.Config) *member {
	t.Helper()
	cfg.Seed = rand.Uint64()
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{cfg: cfg, done: make(chan error, 1)}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go func() { m.done <- s.Run(ctx) }()
	t.Cleanup(func() { m.stop(t) })
	return m
}

func (m *member) stop(t testing.TB) {
	m.cancel()
	if err := <-m.done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	m.done <- nil // for whoever stops it again
}

func (m *member) endpoint() string { return m.cfg.ListenClientURLs[0].Host }

// endpoints starts the members and waits until each answers.
func endpoints(t testing.TB, list []server.Config) (members []*member, joined string) {
	t.Helper()
	var all []string
	for _, cfg := range list {
		m := start(t, cfg)
		members, all = append(members, m), append(all, m.endpoint())
	}
	for _, e := range all {
		await(t, e)
	}
	return members, strings.Join(all, ",")
}

// await waits until an endpoint answers a linearizable read.
func await(t testing.TB, endpoint string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out := kvctl(t, "", "--endpoints", endpoint, "endpoint", "health")
		if out.code == exitOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not become healthy: %s%s", endpoint, out.out, out.errs)
		}
	}
}

// outcome is what one run of kvctl came to.
type outcome struct {
	code      int
	out, errs string
}

// kvctl runs a command in this process.
func kvctl(t testing.TB, in string, args ...string) outcome {
	t.Helper()
	var out, errs strings.Builder
	code := run(args, world{in: strings.NewReader(in), out: &out, errs: &errs})
	return outcome{code, out.String(), errs.String()}
}

// must runs a command that has to succeed and returns what it printed.
func must(t testing.TB, args ...string) string {
	t.Helper()
	o := kvctl(t, "", args...)
	if o.code != exitOK {
		t.Fatalf("kvctl %s: exit %d\n%s%s", strings.Join(args, " "), o.code, o.out, o.errs)
	}
	return o.out
}
