package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/porttest"
)

// member is a kvd in this process, on a directory of the test.
type member struct {
	addr string
	stop func()
}

// startMember starts a cluster of one member, which ends with the test.
func startMember(t testing.TB, change ...func(*server.Config)) *member {
	t.Helper()
	m, err := runMember(t.TempDir(), change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	return m
}

// runMember runs a member on a directory below dir, and again elsewhere when
// another process takes a port between its choice and its use.
func runMember(dir string, change ...func(*server.Config)) (m *member, err error) {
	for i := range 5 {
		if m, err = tryMember(filepath.Join(dir, fmt.Sprint("m", i)), change...); err == nil {
			break
		}
	}
	return m, err
}

func tryMember(dir string, change ...func(*server.Config)) (*member, error) {
	addr := freeAddr()
	u, peer := url.URL{Scheme: "http", Host: addr}, url.URL{Scheme: "http", Host: freeAddr()}
	cfg := server.DefaultConfig()
	cfg.Name, cfg.DataDir = "m0", dir
	cfg.ListenClientURLs, cfg.AdvertiseClientURLs = []url.URL{u}, []url.URL{u}
	cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = []url.URL{peer}, []url.URL{peer}
	cfg.HeartbeatInterval, cfg.ElectionTimeout = 10*time.Millisecond, 100*time.Millisecond
	cfg.Clock, cfg.FS, cfg.Seed = clock.System(), server.WithoutSync(vfs.OS()), uint64(time.Now().UnixNano())
	cfg.UnsafeNoSync = true
	cfg.Logger = slog.New(slog.DiscardHandler)
	ready := make(chan struct{})
	cfg.OnReady = func() { close(ready) }
	for _, c := range change {
		c(&cfg)
	}
	cfg.Complete()
	s, err := server.New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = s.Run(ctx)
	}()
	m := &member{addr: addr, stop: func() {
		cancel()
		<-done
	}}
	select {
	case <-ready:
		return m, nil
	case <-done:
		cancel()
		return nil, fmt.Errorf("the member ended: %w", err)
	case <-time.After(time.Minute):
		m.stop()
		return nil, fmt.Errorf("the member is not ready: %w", err)
	}
}

// freeAddr is a loopback address nobody listens on.
func freeAddr() string {
	port, err := porttest.Claim()
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// open makes a client that is closed with the test.
func open(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// bothWays runs a test with a client whose calls are RPCs by themselves, and with
// one whose calls share streams as soon as they can.
func bothWays(t *testing.T, test func(t *testing.T, open func(client.Config) *client.Client)) {
	t.Run("unary", func(t *testing.T) {
		test(t, func(cfg client.Config) *client.Client {
			cfg.NoPipeline = true
			return open(t, cfg)
		})
	})
	t.Run("pipelined", func(t *testing.T) {
		test(t, func(cfg client.Config) *client.Client {
			c := open(t, client.PipedAtOnce(cfg))
			// A call brings the pipe, which may come after it.
			waitFor(t, "a pipe", func() bool {
				_, err := c.Get(testContext(t), "nothing", client.Serializable())
				return c.Pipes() > 0 || errors.Is(err, api.ErrAuthFailed)
			})
			return c
		})
	})
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// waitFor waits until cond holds, and fails after a while.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
