package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/wire"
)

func client(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// lockAnswer is v3lockpb.LockResponse in JSON.
type lockAnswer struct {
	Header  struct{ Revision string }
	Key     string
	Token   string
	Message string
}

// lock takes a lock through a member's gateway.
func lock(ctx context.Context, base, name string, lease int64) (key string, token int64, err error) {
	body := fmt.Sprintf(`{"name":"%s","lease":"%d"}`, b64(name), lease)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v3/lock/lock", strings.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", 0, err
	}
	var a lockAnswer
	if err := json.Unmarshal(b, &a); err != nil || resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("%s: %s %v", resp.Status, b, err)
	}
	if a.Token != "" { // etcd has none
		if token, err = strconv.ParseInt(a.Token, 10, 64); err != nil {
			return "", 0, err
		}
	}
	raw, err := base64.StdEncoding.DecodeString(a.Key)
	return string(raw), token, err
}

// TestExclusion: clients with etcd's own mutex and callers of the Lock service
// contend for one lock. Nobody is in it together with another, and every holder
// has a higher create revision than the one before.
func TestExclusion(t *testing.T) {
	c := start(t, storeName(), 1)
	m := c.Members[0]
	cl := client(t, m.Endpoint)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var inside, entered atomic.Int32
	var last int64
	enter := func(key string, token int64) {
		if inside.Add(1) != 1 {
			t.Error("two hold the lock")
		}
		resp, err := cl.Get(ctx, key)
		if err != nil || len(resp.Kvs) != 1 {
			t.Errorf("the holder's key %s: %v %v", key, resp, err)
		} else if created := resp.Kvs[0].CreateRevision; created <= last || token != 0 && token != created {
			t.Errorf("token %d, created at %d after %d", token, created, last)
		} else {
			last = created
		}
		entered.Add(1)
		inside.Add(-1)
	}
	const workers, rounds = 3, 8
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for range rounds {
				s, err := concurrency.NewSession(cl, concurrency.WithTTL(30))
				if err != nil {
					t.Error(err)
					return
				}
				mutex := concurrency.NewMutex(s, "l")
				if err := mutex.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				enter(mutex.Key(), 0)
				if err := mutex.Unlock(ctx); err != nil {
					t.Error(err)
				}
				s.Close()
			}
		})
		wait.Go(func() {
			for range rounds {
				key, token, err := lock(ctx, m.ClientURL(), "l", 0)
				if err != nil {
					t.Error(err)
					return
				}
				enter(key, token)
				if _, err := cl.Delete(ctx, key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if got := entered.Load(); got != 2*workers*rounds {
		t.Errorf("%d entered", got)
	}
}

// TestElectionInterop: etcd's Election and the service see each other's leaders.
func TestElectionInterop(t *testing.T) {
	c := start(t, storeName(), 1)
	base := c.Members[0].ClientURL()
	cl := client(t, c.Members[0].Endpoint)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := concurrency.NewSession(cl)
	if err != nil {
		t.Fatal(err)
	}
	theirs := concurrency.NewElection(s, "e")
	if err := theirs.Campaign(ctx, "theirs"); err != nil {
		t.Fatal(err)
	}
	if a := post("/v3/election/leader", `{"name":"%s"}`, b64("e")).send(t, base); !strings.Contains(a.Body, b64("theirs")) {
		t.Fatal(a)
	}
	won := make(chan answer, 1)
	go func() {
		won <- post("/v3/election/campaign", `{"name":"%s","value":"%s"}`, b64("e"), b64("ours")).send(t, base)
	}()
	queued(ctx, t, cl, "e/", 2)
	if err := theirs.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	if a := <-won; a.Code != http.StatusOK {
		t.Fatal(a)
	}
	if resp, err := theirs.Leader(ctx); err != nil || string(resp.Kvs[0].Value) != "ours" {
		t.Fatal(resp, err)
	}
}

func queued(ctx context.Context, t *testing.T, cl *clientv3.Client, prefix string, n int64) {
	t.Helper()
	for {
		resp, err := cl.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && resp.Count == n {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the queue %s never had %d keys: %v", prefix, n, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// lockOver takes a lock over gRPC.
func lockOver(ctx context.Context, conn *grpc.ClientConn, name string, lease int64) error {
	m, err := wire.Lookup("Lock/Lock")
	if err == nil {
		_, err = m.Call(ctx, conn, &v3lockpb.LockRequest{Name: []byte(name), Lease: lease})
	}
	return err
}

// TestLeaderKill: a lock that waits on a follower is granted although the leader
// was killed meanwhile; one that waits on the leader itself fails, keeps its
// place, and is granted when it is asked for again elsewhere.
func TestLeaderKill(t *testing.T) {
	c := start(t, storeName(), 3)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leader, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var others []*cluster.Member
	var endpoints []string
	for _, m := range c.Members {
		if m != leader {
			others, endpoints = append(others, m), append(endpoints, m.Endpoint)
		}
	}
	cl := client(t, endpoints...)
	leases := make([]int64, 3)
	for i := range leases {
		g, err := cl.Grant(ctx, 120)
		if err != nil {
			t.Fatal(err)
		}
		leases[i] = int64(g.ID)
	}
	key, _, err := lock(ctx, others[0].ClientURL(), "l", leases[0])
	if err != nil {
		t.Fatal(err)
	}
	onFollower, onLeader := make(chan error, 1), make(chan error, 1)
	dial := func(m *cluster.Member) *grpc.ClientConn {
		conn, err := m.Dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	follower, led := dial(others[0]), dial(leader)
	go func() { onFollower <- lockOver(ctx, follower, "l", leases[1]) }()
	queued(ctx, t, cl, "l/", 2)
	go func() { onLeader <- lockOver(ctx, led, "l", leases[2]) }()
	queued(ctx, t, cl, "l/", 3)
	leader.Kill()
	if err := <-onLeader; err == nil {
		t.Fatal("a dead member granted a lock")
	}
	select {
	case err := <-onFollower:
		t.Fatal("the second has the lock while the first holds it:", err)
	default:
	}
	if _, err := cl.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	if err := <-onFollower; err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Delete(ctx, fmt.Sprintf("l/%x", leases[1])); err != nil {
		t.Fatal(err)
	}
	if key, _, err := lock(ctx, others[1].ClientURL(), "l", leases[2]); err != nil || key != fmt.Sprintf("l/%x", leases[2]) {
		t.Fatal(key, err)
	}
}
