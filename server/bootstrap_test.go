package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// homeConfig is member `name` of a cluster of three, on fs.
func homeConfig(fs vfs.FS, name string) *Config {
	c := DefaultConfig()
	c.Name, c.DataDir, c.FS = name, "/data", fs
	c.Clock, c.Logger = clock.System(), slog.New(slog.DiscardHandler)
	c.InitialCluster = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3"
	port := map[string]string{"a": "1", "b": "2", "c": "3"}[name]
	c.AdvertisePeerURLs, _ = ParseURLs("http://127.0.0.1:" + port)
	return &c
}

// nobody is a network on which no member answers.
func nobody(context.Context, string) (*announcement, error) { return nil, syscall.ECONNREFUSED }

func mustOpenHome(t *testing.T, cfg *Config) *home {
	t.Helper()
	h, err := openHome(cfg, nobody)
	if err != nil {
		t.Fatalf("openHome: %v", err)
	}
	return h
}

// runOnce lets a member make its log.
func runOnce(t *testing.T, cfg *Config) {
	t.Helper()
	h := mustOpenHome(t, cfg)
	f, err := cfg.FS.Create(cfg.walDir() + "/segment")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), cfg.FS.SyncDir(cfg.walDir()), h.started(), h.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestHomeIsRemembered(t *testing.T) {
	fs := vfs.NewMem(1)
	cfg := homeConfig(fs, "a")
	h := mustOpenHome(t, cfg)
	if !h.fresh || len(h.initial) != 3 {
		t.Fatalf("an empty directory is fresh: %+v", h)
	}
	first := h.identity
	if _, err := openHome(cfg, nobody); !errors.Is(err, ErrDirInUse) {
		t.Errorf("a second member opened the directory: %v", err)
	}
	h.Close()
	// No log was made: the next start bootstraps, with the cluster of the first.
	again := homeConfig(fs, "a")
	again.InitialCluster = "a=http://127.0.0.1:1"
	h = mustOpenHome(t, again)
	if h.identity != first || !h.fresh || len(h.initial) != 3 {
		t.Errorf("got %+v, want %+v", h.identity, first)
	}
	h.Close()
	// A log that a crash has left empty counts for none.
	f, err := fs.Create(cfg.walDir() + "/0000000000000001.wal")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if h = mustOpenHome(t, cfg); !h.bootstraps() {
		t.Error("a crash inside the first start leaves a member that waits for ever")
	}
	h.Close()
	runOnce(t, cfg)
	h = mustOpenHome(t, cfg)
	if h.bootstraps() || h.fresh || !h.identity.Started {
		t.Errorf("a member with a log is not fresh: %+v", h)
	}
	h.Close()
}

func TestHomeRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(cfg *Config)
		want   error
	}{
		{"as it was", func(*Config) {}, nil},
		{"flags dropped", func(c *Config) { c.InitialCluster, c.ClusterToken = "x=http://127.0.0.1:9", "default" }, nil},
		{"another token", func(c *Config) { c.ClusterToken, c.TokenGiven = "other", true }, ErrWrongCluster},
		{"a stale list", func(c *Config) { c.InitialCluster, c.InitialClusterGiven = "a=http://127.0.0.1:9", true }, nil},
		{"a list of strangers", func(c *Config) { c.InitialCluster, c.InitialClusterGiven = "x=http://127.0.0.1:9", true }, ErrWrongCluster},
		{"another member", func(c *Config) { c.Name, c.InitialClusterGiven = "b", true }, ErrWrongMember},
		{"a new name", func(c *Config) { c.Name, c.InitialClusterGiven = "z", true }, nil},
		{"existing", func(c *Config) { c.NewCluster = false }, nil},
		{"the log elsewhere", func(c *Config) { c.WALDir = "/elsewhere" }, ErrDirDamaged},
	} {
		fs := vfs.NewMem(1)
		runOnce(t, homeConfig(fs, "a"))
		cfg := homeConfig(fs, "a")
		c.change(cfg)
		h, err := openHome(cfg, nobody)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err == nil {
			h.Close()
		} else if h, err := openHome(homeConfig(fs, "a"), nobody); err != nil {
			t.Errorf("%s: the refusal left the directory unusable: %v", c.name, err)
		} else {
			h.Close()
		}
	}
}

func TestHomeRefusesForeignData(t *testing.T) {
	for file, want := range map[string]string{
		"/data/member/wal/0000000000000000-0000000000000000.wal":   "is etcd's, whose log",
		"/data/member/snap/0000000000000002-0000000000000011.snap": "is etcd's, whose log",
		"/data/member/snap/db":                "was lost. To move a running etcd: kvctl migrate.",
		"/data/member/wal/0000000000000001.k": "was lost",
	} {
		fs := vfs.NewMem(1)
		cfg := homeConfig(fs, "a")
		for _, dir := range []string{cfg.walDir(), cfg.snapDir()} {
			if err := fs.MkdirAll(dir, dirMode); err != nil {
				t.Fatal(err)
			}
		}
		f, err := fs.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		_, err = openHome(cfg, nobody)
		if !errors.Is(err, ErrForeignDir) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", file, err, want)
		}
		if _, err := fs.Stat(cfg.identityPath()); !errors.Is(err, vfs.ErrNotExist) {
			t.Errorf("%s: a refused directory was given an identity", file)
		}
	}
}

func TestHomeRefusesImpossibleClusters(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"couldn't find local name":                 func(c *Config) { c.Name = "z" },
		"--initial-advertise-peer-urls is":         func(c *Config) { c.AdvertisePeerURLs, _ = ParseURLs("http://127.0.0.1:9") },
		"has duplicate url":                        func(c *Config) { c.InitialCluster = "a=http://127.0.0.1:1,b=http://127.0.0.1:1" },
		"is not of the form":                       func(c *Config) { c.InitialCluster = "a" },
		"URL scheme must be":                       func(c *Config) { c.InitialCluster = "a=ftp://127.0.0.1:1" },
		"cannot fetch cluster info from peer urls": func(c *Config) { c.NewCluster = false },
		`does not have the form "host:port"`:       func(c *Config) { c.InitialCluster = "a=http://127.0.0.1" },
	} {
		cfg := homeConfig(vfs.NewMem(1), "a")
		change(cfg)
		if _, err := openHome(cfg, nobody); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// TestHomeSurvivesCrashes cuts the power after every call to the file system.
// Whatever is left, the next start either finds the identity or makes the same
// one; after openHome has returned, it is never lost again.
func TestHomeSurvivesCrashes(t *testing.T) {
	mem := vfs.NewMem(1)
	fault := vfs.NewFault(mem)
	runOnce(t, homeConfig(fault, "a"))
	total := fault.Count()
	want := mustOpenHome(t, homeConfig(mem.DurableClone(), "a")).identity
	if !want.Started {
		t.Fatalf("what was started is not durable: %+v", want)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= total; n++ {
		for range 8 {
			mem := vfs.NewMem(1)
			fault := vfs.NewFault(mem, vfs.Rule{Nth: n, Times: 1 << 20})
			cfg := homeConfig(fault, "a")
			h, err := openHome(cfg, nobody)
			clone := mem.CrashClone(rng)
			if err == nil {
				err = h.started()
				clone = mem.CrashClone(rng)
			}
			left, err2 := openHome(homeConfig(clone, "a"), nobody)
			if err2 != nil {
				// Started with no log is damage; here the log was never made.
				if err == nil && errors.Is(err2, ErrDirDamaged) {
					continue
				}
				t.Fatalf("call %d failed (%v), power went, and then: %v", n, err, err2)
			}
			left.identity.Started = want.Started
			if left.identity != want {
				t.Fatalf("call %d: got %+v, want %+v", n, left.identity, want)
			}
		}
	}
}

func TestHomeWithoutSpace(t *testing.T) {
	mem := vfs.NewMem(1)
	mem.SetSpace(10)
	if _, err := openHome(homeConfig(mem, "a"), nobody); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("got %v, want %v", err, vfs.ErrNoSpace)
	}
	mem.SetSpace(-1)
	mustOpenHome(t, homeConfig(mem, "a"))
}

// TestIdentityDamage turns every bit of the file and cuts it at every length.
func TestIdentityDamage(t *testing.T) {
	id := identity{Cluster: 0xcdf818194e3a8c32, Member: 0x8e9e05c52164694d, Name: "a \"b\"\n", Token: "t", Initial: "a=http://127.0.0.1:1", Started: true}
	good := id.encode()
	if got, err := decodeIdentity(good); err != nil || got != id {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := decodeIdentity(bad); err == nil {
				t.Fatalf("bit %d of byte %d turned, and nobody noticed", bit, i)
			}
		}
		if _, err := decodeIdentity(good[:i]); err == nil {
			t.Fatalf("cut at %d, and nobody noticed", i)
		}
	}
	newer := []byte(strings.Replace(string(good), "member 1", "member 2", 1))
	if _, err := decodeIdentity(newer); !errors.Is(err, ErrForeignDir) {
		t.Errorf("a newer format: %v", err)
	}
	fs := vfs.NewMem(1)
	cfg := homeConfig(fs, "a")
	runOnce(t, cfg)
	f, err := fs.Open(cfg.identityPath())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("X"), 30); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := openHome(cfg, nobody); !errors.Is(err, ErrDirDamaged) || !strings.Contains(fmt.Sprint(err), "checksum") {
		t.Errorf("got %v, want %v", err, ErrDirDamaged)
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add(identity{Cluster: 1, Member: 2, Name: "a", Token: "b", Initial: "c", Started: true}.encode())
	f.Add([]byte("keelson-member 1\ncrc32c 00000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err == nil && !bytes.Equal(id.encode(), b) {
			t.Errorf("accepted %q, which encodes as %q", b, id.encode())
		}
	})
}
