package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server"
)

// restoreArgs are the flags with which a planned member is restored.
func restoreArgs(file string, cfg *server.Config, more ...string) []string {
	return append([]string{
		"snapshot", "restore", file, "--name", cfg.Name, "--data-dir", cfg.DataDir, "--initial-cluster", cfg.InitialCluster,
		"--initial-advertise-peer-urls", cfg.AdvertisePeerURLs[0].String(), "--initial-cluster-token", cfg.ClusterToken,
	}, more...)
}

// saved is a snapshot of a cluster with some history, and the cluster's answers.
func saved(t *testing.T) (file, endpoint string) {
	t.Helper()
	_, endpoint = endpoints(t, plan(t, 1, t.TempDir()))
	for i := range 30 {
		must(t, "--endpoints", endpoint, "put", fmt.Sprintf("k%02d", i%10), fmt.Sprint("value ", i))
	}
	must(t, "--endpoints", endpoint, "del", "k01")
	file = filepath.Join(t.TempDir(), "backup.db")
	must(t, "--endpoints", endpoint, "snapshot", "save", file)
	return file, endpoint
}

// body is a range as JSON without the header, which names the cluster.
func body(json string) string {
	_, kvs, _ := strings.Cut(json, `"kvs":`)
	return kvs
}

// TestRestoreThree makes a cluster of three of one file: same keys, same
// revisions; by default history is given up and the revision is raised, so that
// every client that knows an older one is told.
func TestRestoreThree(t *testing.T) {
	t.Parallel()
	file, from := saved(t)
	want := must(t, "--endpoints", from, "get", "", "--prefix", "-o", "json")
	list := plan(t, 3, t.TempDir())
	for i := range list {
		list[i].ClusterToken = "restored"
		out := must(t, restoreArgs(file, &list[i])...)
		if !strings.Contains(out, "Restored 9 keys and 0 leases at revision 1000000032 into") {
			t.Errorf("restore says: %s", out)
		}
	}
	members, all := endpoints(t, list)
	for _, m := range members {
		got := must(t, "--endpoints", m.endpoint(), "get", "", "--prefix", "-o", "json")
		if body(got) != body(want) || !strings.Contains(got, `"revision":1000000032,`) {
			t.Errorf("%s\nbut the snapshot was of\n%s", got, want)
		}
	}
	if o := kvctl(t, "", "--endpoints", all, "get", "k02", "--rev", "20"); !strings.Contains(o.errs, "has been compacted") {
		t.Errorf("an old revision is read: %+v", o)
	}
	if got := must(t, "--endpoints", all, "member", "list"); strings.Count(got, "started") != 3 || strings.Count(got, "\n") != 3 {
		t.Errorf("the restored cluster's members are\n%s", got)
	}
	must(t, "--endpoints", all, "put", "k01", "again")
	if got := must(t, "--endpoints", members[2].endpoint(), "get", "k01", "-o", "json"); !strings.Contains(got, `"mod_revision":1000000033`) {
		t.Errorf("after the restore: %s", got)
	}
	for _, m := range members {
		m.stop(t)
	}
	_, all = endpoints(t, list) // what was restored also survives a restart
	if got := must(t, "--endpoints", all, "get", "k01", "--print-value-only"); got != "again\n" {
		t.Errorf("after a restart: %q", got)
	}
}

// TestRestoreKeepsHistory turns the raised revision off.
func TestRestoreKeepsHistory(t *testing.T) {
	t.Parallel()
	file, from := saved(t)
	for _, flag := range []string{"--bump-revision=0", "--mark-compacted=false"} {
		list := plan(t, 1, t.TempDir())
		list[0].WALDir = filepath.Join(t.TempDir(), "wal")
		must(t, restoreArgs(file, &list[0], flag, "--wal-dir", list[0].WALDir)...)
		_, to := endpoints(t, list)
		for _, rev := range []string{"5", "20", "32"} {
			args := []string{"get", "", "--prefix", "--rev", rev, "-o", "json", "--endpoints"}
			if a, b := must(t, append(args, from)...), must(t, append(args, to)...); body(a) != body(b) {
				t.Errorf("%s at revision %s:\n%s\nand\n%s", flag, rev, a, b)
			}
		}
		if got := must(t, "--endpoints", to, "put", "new", "1", "-o", "json"); !strings.Contains(got, `"revision":33,`) {
			t.Errorf("the next revision: %s", got)
		}
	}
}

// TestRestoreRefusals: a damaged file, and a directory in use, are refused and
// nothing is left behind.
func TestRestoreRefusals(t *testing.T) {
	file, _ := saved(t)
	cfg := plan(t, 1, t.TempDir())[0]
	refused := func(what, want string, code int, args []string) {
		t.Helper()
		if o := kvctl(t, "", args...); o.code != code || !strings.Contains(o.errs, want) {
			t.Errorf("%s: exit %d, %s", what, o.code, o.errs)
		}
		if _, err := os.Stat(filepath.Join(cfg.DataDir, "member")); err == nil {
			t.Errorf("%s leaves something behind", what)
		}
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.db")
	write := func(b []byte) {
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 1
	write(flipped)
	refused("a flipped bit", "its SHA-256 is", exitCheck, restoreArgs(bad, &cfg))
	refused("its status", "does not match the SHA-256", exitCheck, []string{"snapshot", "status", bad})
	write(good[:len(good)-4096])
	refused("a truncated file", "its SHA-256 is", exitCheck, restoreArgs(bad, &cfg))
	write(good[:len(good)-32])
	refused("a file without digest", "--skip-hash-check", exitCheck, restoreArgs(bad, &cfg))
	write([]byte(strings.Repeat("not a database. ", 1024)))
	refused("something else", "the snapshot is damaged", exitCheck, restoreArgs(bad, &cfg, "--skip-hash-check"))
	refused("no file", "no such file", exitFile, restoreArgs(filepath.Join(t.TempDir(), "absent"), &cfg))
	refused("one of two", "go together", exitUsage, restoreArgs(file, &cfg, "--bump-revision=5", "--mark-compacted=false"))
	refused("a stranger", "couldn't find local name", exitUsage, restoreArgs(file, &cfg, "--name", "stranger"))
	write(good[:len(good)-32])
	must(t, restoreArgs(bad, &cfg, "--skip-hash-check")...)
	if o := kvctl(t, "", restoreArgs(file, &cfg)...); o.code != exitUsage || !strings.Contains(o.errs, "is not empty") {
		t.Errorf("a second restore: %+v", o)
	}
}
