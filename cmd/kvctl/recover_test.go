package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecover loses two of three members and makes a cluster of the third, which
// then grows again.
func TestRecover(t *testing.T) {
	t.Parallel()
	list := plan(t, 3, t.TempDir())
	members, all := endpoints(t, list)
	for i := range 50 {
		must(t, "--endpoints", all, "put", fmt.Sprint("k", i), "v")
	}
	must(t, "--endpoints", members[0].endpoint(), "get", "k49") // it has all of them
	survivor := list[0].DataDir
	recover := func(in string, more ...string) outcome {
		return kvctl(t, in, append([]string{"cluster", "recover", "--data-dir", survivor}, more...)...)
	}
	if o := recover("", "--yes"); o.code != exitUsage || !strings.Contains(o.errs, "in use by another process") {
		t.Errorf("while it runs: %+v", o)
	}
	members[0].stop(t)
	members[1].stop(t)
	if o := recover("", "--yes", "--backup-dir", filepath.Join(t.TempDir(), "b")); o.code != exitRefused || !strings.Contains(o.errs, "lives at http://") {
		t.Errorf("while another one lives: %+v", o)
	}
	members[2].stop(t)
	if err := os.RemoveAll(list[1].DataDir); err != nil {
		t.Fatal(err)
	}
	if o := recover("", "--dry-run"); o.code != exitOK || !strings.Contains(o.out, "It holds ") || strings.Count(o.out, "will be removed for ever") != 2 {
		t.Errorf("a dry run: %+v", o)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if o := recover("no\n", "--backup-dir", backup); o.code != exitRefused || !strings.Contains(o.errs, "nothing was changed") {
		t.Errorf("without consent: %+v", o)
	}
	if o := recover("m0\n", "--backup-dir", backup); o.code != exitOK || !strings.Contains(o.out, "Done. Next:") {
		t.Fatalf("recover: %+v", o)
	}
	if _, err := os.Stat(filepath.Join(backup, "member", "identity")); err != nil {
		t.Error(err)
	}
	m := start(t, list[0])
	await(t, m.endpoint())
	if got := must(t, "--endpoints", m.endpoint(), "get", "", "--prefix", "--count-only"); got != "50\n" {
		t.Errorf("%s keys after the recovery", got)
	}
	if got := must(t, "--endpoints", m.endpoint(), "member", "list"); strings.Count(got, "\n") != 1 {
		t.Errorf("members: %s", got)
	}
	must(t, "--endpoints", m.endpoint(), "put", "after", "1")
	grow(t, m.endpoint())
}

// grow adds a member with an empty directory and waits until it answers.
func grow(t *testing.T, to string) {
	t.Helper()
	fresh := plan(t, 1, t.TempDir())[0]
	fresh.Name = "fresh"
	out := must(t, "--endpoints", to, "member", "add", fresh.Name, "--peer-urls", fresh.AdvertisePeerURLs[0].String())
	_, rest, _ := strings.Cut(out, `ETCD_INITIAL_CLUSTER="`)
	fresh.InitialCluster, _, _ = strings.Cut(rest, `"`)
	fresh.NewCluster = false
	m := start(t, fresh)
	await(t, m.endpoint())
	if got := must(t, "--endpoints", m.endpoint(), "get", "after", "--print-value-only"); got != "1\n" {
		t.Errorf("the new member says %q", got)
	}
}

func TestRecoverRefusals(t *testing.T) {
	empty := t.TempDir()
	if o := kvctl(t, "", "cluster", "recover"); o.code != exitUsage {
		t.Errorf("no directory: %+v", o)
	}
	if o := kvctl(t, "", "cluster", "recover", "--data-dir", empty, "--yes"); o.code != exitFile {
		t.Errorf("an empty directory: %+v", o)
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("it leaves %v, %v", entries, err)
	}
}
