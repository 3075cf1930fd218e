package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// zone is DNS: targets by service, addresses by host:port. Unknown names fail.
type zone struct {
	services  map[string][]string
	addresses map[string]string
}

func (z zone) srv(_ context.Context, service, domain string) ([]string, error) {
	if t, ok := z.services[service+"."+domain]; ok {
		return t, nil
	}
	return nil, errors.New("no such host")
}

func (z zone) address(_ context.Context, hostport string) (string, error) {
	if a, ok := z.addresses[hostport]; ok {
		return a, nil
	}
	return "", errors.New("no such host")
}

func TestDiscoveryByDNS(t *testing.T) {
	addresses := map[string]string{"a.x:2380": "10.0.0.1:2380", "b.x:2380": "10.0.0.2:2380", "c.x:2380": "10.0.0.3:2380", "10.0.0.1:2380": "10.0.0.1:2380"}
	for _, c := range []struct {
		name      string
		services  map[string][]string
		advertise string
		srvName   string
		want, err string
	}{
		{"three", map[string][]string{"etcd-server.x": {"b.x:2380", "a.x:2380", "c.x:2380"}}, "http://10.0.0.1:2380", "",
			"0=http://b.x:2380,me=http://a.x:2380,1=http://c.x:2380", ""},
		{"with TLS", map[string][]string{"etcd-server-ssl.x": {"a.x:2380", "c.x:2380"}}, "https://a.x:2380", "", "me=https://a.x:2380,0=https://c.x:2380", ""},
		{"a named service", map[string][]string{"etcd-server-blue.x": {"a.x:2380"}, "etcd-server.x": {"b.x:2380"}}, "http://a.x:2380", "blue", "me=http://a.x:2380", ""},
		{"one target unknown", map[string][]string{"etcd-server.x": {"z.x:1", "a.x:2380"}}, "http://a.x:2380", "", "me=http://a.x:2380", ""},
		{"nobody", nil, "http://a.x:2380", "", "", "error querying DNS SRV records for _etcd-server: no such host"},
		{"not me", map[string][]string{"etcd-server.x": {"b.x:2380"}}, "http://a.x:2380", "", "", `cannot find local etcd member "me" in SRV records`},
		{"the other scheme", map[string][]string{"etcd-server.x": {"a.x:2380"}}, "https://a.x:2380", "", "", "scheme mismatch with expected peer"},
		{"I am unknown", map[string][]string{"etcd-server.x": {"b.x:2380"}}, "http://z.x:1", "", "", "no such host"},
	} {
		cfg := DefaultConfig()
		cfg.Name, cfg.Logger = "me", slog.New(slog.DiscardHandler)
		cfg.AdvertisePeerURLs, _ = ParseURLs(c.advertise)
		cfg.Discovery.SRV, cfg.Discovery.SRVName, cfg.Discovery.resolver = "x", c.srvName, zone{c.services, addresses}
		got, token, err := cfg.findCluster()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || got != c.want || token != DefaultClusterToken {
			t.Errorf("%s: %q, %q, %v; want %q", c.name, got, token, err, c.want)
		}
	}
}

func TestDiscoveryFlags(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Discovery.SRV = "x" }, ""},
		{func(c *Config) { c.Discovery.Endpoints, c.Discovery.Token = []string{"a:1"}, "t" }, ""},
		{func(c *Config) { c.Discovery.SRV, c.InitialCluster = "x", "a=http://a:1" }, "multiple discovery or bootstrap flags are set"},
		{func(c *Config) { c.Discovery.Endpoints = []string{"a:1"} }, "both --discovery-token and --discovery-endpoints must be set"},
		{func(c *Config) { c.Discovery.Token = "t" }, "both --discovery-token and --discovery-endpoints must be set"},
		{func(c *Config) { c.Discovery.Endpoints, c.Discovery.Token = []string{"a:1", " "}, "t" }, "must not contain empty endpoints"},
		{func(c *Config) {
			c.Discovery.Endpoints, c.Discovery.Token, c.NewCluster = []string{"a:1"}, "t", false
		}, "discovery URL should not be set when joining"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		cfg.Complete()
		if err := cfg.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestDiscoveryByRegistry lets three members find each other through a fourth,
// and turns a latecomer away.
func TestDiscoveryByRegistry(t *testing.T) {
	service := newTestCluster(1).start(t, "m0")
	endpoint := service.parts.sockets.client[0].Addr().String()
	config := func(i int, ctx context.Context) *Config {
		cfg := DefaultConfig()
		cfg.Name, cfg.DataDir, cfg.FS, cfg.Clock = fmt.Sprint("n", i), "/data", vfs.NewMem(uint64(i)), clock.System()
		cfg.Logger, cfg.Interrupt = slog.New(slog.DiscardHandler), ctx
		cfg.AdvertisePeerURLs, _ = ParseURLs(fmt.Sprintf("http://127.0.0.1:%d", 100+i))
		cfg.Discovery.Endpoints, cfg.Discovery.Token = []string{"127.0.0.1:1", "http://" + endpoint}, "fleet"
		return &cfg
	}
	try := func(i int) (*home, error) { return openHome(config(i, callContext(t)), nobody) }
	put := func(key, value string) {
		t.Helper()
		if _, err := service.kv().Put(callContext(t), &pb.PutRequest{Key: []byte(registryPrefix + "/fleet/" + key), Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := try(0); !errors.Is(err, errRegistryNoSize) {
		t.Errorf("without a size: %v", err)
	}
	put("_config/size", "many")
	if _, err := try(0); !errors.Is(err, errRegistrySize) {
		t.Errorf("a bad size: %v", err)
	}
	put("_config/size", "3")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := openHome(config(0, ctx), nobody); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted wait: %v", err)
	}
	var homes [3]*home
	var wait sync.WaitGroup
	for i := range homes {
		wait.Go(func() {
			var err error
			if homes[i], err = try(i); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	for i, h := range homes {
		if len(h.initial) != 3 || h.cluster() != homes[0].cluster() || h.identity.Token != "fleet" || h.identity.Name != fmt.Sprint("n", i) {
			t.Errorf("member %d: %+v", i, h.identity)
		}
		if want := memberID([]string{fmt.Sprintf("http://127.0.0.1:%d", 100+i)}, "fleet"); h.id() != want {
			t.Errorf("member %d has id %s, want %s", i, h.id(), want)
		}
		h.Close()
	}
	if _, err := try(3); !errors.Is(err, errRegistryFull) {
		t.Errorf("a latecomer: %v", err)
	}
	h, err := try(1) // an empty disk again, while the registry still knows the member
	if err != nil || h.id() != homes[1].id() {
		t.Fatalf("a second try: %v", err)
	}
	h.Close()
	put("members/x", "nonsense=")
	if _, err := joinEntries([]registered{{cluster: "nonsense="}}, "fleet"); !errors.Is(err, errRegistryBadEntry) {
		t.Errorf("a bad entry: %v", err)
	}
}
