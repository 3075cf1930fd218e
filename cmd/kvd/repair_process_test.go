package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keelson-io/keelson/raft/vfs"
)

// zeroSector zeroes the sector of the member's log that holds text.
func (s site) zeroSector(t *testing.T, text string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(s.dir, "member", "wal", "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, []byte(text))
		if at < 0 {
			continue
		}
		clear(b[at&^(vfs.SectorSize-1):][:vfs.SectorSize])
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%q is not in the log of %s", text, s.dir)
}

// TestDamagedMemberIsRepaired is the script that costs etcd acknowledged writes:
// the third member lags, the log of the second loses a sector while all are
// down, and the first comes back last.
func TestDamagedMemberIsRepaired(t *testing.T) {
	sites := []site{newSite(t), newSite(t), newSite(t)}
	var initial []string
	for i, s := range sites {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, s.peer))
	}
	start := func(i int) *process {
		return sites[i].start(t, fmt.Sprintf("--name=m%d", i), "--initial-cluster="+strings.Join(initial, ","))
	}
	kill := func(p *process) {
		p.signal(syscall.SIGKILL)
		p.code()
	}
	procs := []*process{start(0), start(1), start(2)}
	for i, p := range procs {
		sites[i].await(t, p)
	}
	put(t, sites[0].client, "first", "first")
	kill(procs[2])
	key := func(i int) string { return fmt.Sprintf("acked-%03d", i) }
	for i := range 40 {
		put(t, sites[i%2].client, key(i), key(i))
	}
	kill(procs[0])
	kill(procs[1])
	sites[1].zeroSector(t, key(15))

	procs[1], procs[2] = start(1), start(2)
	procs[1].says("this member neither votes nor serves")
	procs[0] = start(0)
	procs[1].says("repaired the stored data")
	for i, p := range procs {
		sites[i].await(t, p)
	}
	for i := range 40 {
		if value, _ := get(t, sites[2].client, key(i)); value != key(i) {
			t.Errorf("%s was acknowledged and reads %q", key(i), value)
		}
	}
	if body, err := fetch(sites[1].client, "/metrics"); err != nil || !strings.Contains(body, "keelson_server_repairs_total 1") {
		t.Errorf("the repair is not counted: %v", err)
	}
	// Its vote counts again, and so does its log after another crash.
	kill(procs[0])
	put(t, sites[1].client, "after", "after")
	kill(procs[1])
	procs[1] = start(1)
	sites[1].await(t, procs[1])
	if value, _ := get(t, sites[1].client, key(15)); value != key(15) {
		t.Errorf("%s reads %q after a restart", key(15), value)
	}
	if kept, _ := filepath.Glob(filepath.Join(sites[1].dir, "member", "wal", "*.damaged")); len(kept) == 0 {
		t.Error("the damaged log is gone")
	}
}
