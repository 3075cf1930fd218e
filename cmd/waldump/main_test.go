package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
)

// TestTranscript shows what an operator sees of a log in each state.
func TestTranscript(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	datadriven.RunTest(t, "testdata/waldump.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "make":
			makeLog(t, dir)
		case "flip":
			var file string
			var off int64
			d.ScanArgs(t, "file", &file)
			d.ScanArgs(t, "off", &off)
			flip(t, filepath.Join(dir, file), off)
		case "waldump":
			var out strings.Builder
			args := strings.Fields(strings.ReplaceAll(d.Input, "DIR", dir))
			code := run(args, &out, &out)
			return fmt.Sprintf("%sexit %d\n", strings.ReplaceAll(out.String(), dir, "DIR"), code)
		default:
			d.Fatalf(t, "unknown command %q", d.Cmd)
		}
		return "ok\n"
	})
}

// makeLog leaves a log as a killed process does.
func makeLog(t *testing.T, dir string) {
	w, err := wal.Create(vfs.OS(), dir, wal.Identity{Cluster: 0xcdf8, Member: 0x8e9e}, wal.Options{SegmentSize: 32 << 10})
	check(t, err)
	hs := wal.HardState{Term: 2, Vote: 0x8e9e}
	for i := uint64(1); i <= 6; i++ {
		term := 2 + i/5
		hs.Term = api.Term(term)
		data := make([]byte, 100*i)
		check(t, w.Append(&hs, []*raftpb.Entry{{Index: &i, Term: &term, Data: data}}))
		check(t, w.Sync())
	}
	i, term := uint64(6), uint64(3)
	check(t, w.Append(&wal.HardState{Term: 3, Vote: 0x8e9e, Commit: 5}, []*raftpb.Entry{{Index: &i, Term: &term}}))
	check(t, w.Sync())
}

func flip(t *testing.T, name string, off int64) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	check(t, err)
	p := make([]byte, 1)
	_, err = f.ReadAt(p, off)
	check(t, err)
	p[0] ^= 0x10
	_, err = f.WriteAt(p, off)
	check(t, err)
	check(t, f.Close())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
