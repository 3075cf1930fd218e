package wal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// TestTranscripts runs the scripts in testdata/transcripts. They show the durability
// protocol call by call, and what recovery makes of each kind of disk.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		x := newScript()
		datadriven.RunTest(t, path, x.run)
	})
}

// script carries out the commands of a transcript.
type script struct {
	mem   *vfs.Mem
	fault *vfs.Fault
	w     *WAL
	calls bool // print the file-system calls of each command
}

func newScript() *script {
	x := &script{}
	x.use(vfs.NewMem(1))
	return x
}

func (x *script) use(disk *vfs.Mem) {
	x.mem, x.fault = disk, vfs.NewFault(disk)
}

func (x *script) run(t *testing.T, d *datadriven.TestData) string {
	x.fault.TakeCalls()
	var out strings.Builder
	if err := x.command(t, d, &out); err != nil {
		fmt.Fprintf(&out, "error: %v\n", err)
	}
	if x.calls {
		for _, c := range x.fault.TakeCalls() {
			fmt.Fprintf(&out, "%v\n", c)
		}
	}
	if out.Len() == 0 {
		return "ok\n"
	}
	return out.String()
}

func (x *script) command(t *testing.T, d *datadriven.TestData, out *strings.Builder) (err error) {
	switch d.Cmd {
	case "show-calls":
		x.calls = true
	case "create":
		x.w, err = Create(x.fault, testDir, testID, testOpt)
	case "open":
		var r *Recovered
		x.w, r, err = Open(x.fault, testDir, testID, testOpt)
		if r != nil {
			fmt.Fprintf(out, "entries (%d/%d, %d] %+v torn=%d\n", r.Start.Index, r.Start.Term, r.Last, r.HardState, r.TornBytes)
		}
	case "append":
		return x.append(t, d)
	case "sync":
		err = x.w.Sync()
	case "mark":
		err = x.w.Mark()
	case "release":
		err = x.w.Release(api.Index(number(t, d, "to")))
	case "reset":
		err = x.w.Reset(Position{api.Index(number(t, d, "index")), api.Term(number(t, d, "term"))})
	case "close":
		err = x.w.Close()
	case "crash":
		x.crash(t, d)
	case "hurt":
		return x.hurt(t, d)
	case "remove":
		err = x.mem.Remove(path(testDir, text(t, d, "file")))
	case "fail":
		x.fault.SetRules(vfs.Rule{Op: vfs.Op(text(t, d, "op")), Nth: 1, Err: vfs.ErrInjected})
	case "content":
		fmt.Fprintf(out, "%s\n", content(x.w))
	case "dump":
		x.dump(out)
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	return err
}

func number(t *testing.T, d *datadriven.TestData, key string) (n uint64) {
	d.MaybeScanArgs(t, key, &n)
	return n
}

func text(t *testing.T, d *datadriven.TestData, key string) (s string) {
	d.ScanArgs(t, key, &s)
	return s
}

// append from= to= term= size= [vote= commit=]: the hard state is given if a
// vote or a commit index is.
func (x *script) append(t *testing.T, d *datadriven.TestData) error {
	from, to, term := number(t, d, "from"), number(t, d, "to"), number(t, d, "term")
	var hs *HardState
	if d.HasArg("vote") || d.HasArg("commit") {
		old := x.w.HardState()
		hs = &HardState{Term: max(old.Term, api.Term(term)), Vote: old.Vote, Commit: max(old.Commit, api.Index(number(t, d, "commit")))}
		if d.HasArg("vote") {
			hs.Vote = api.MemberID(number(t, d, "vote"))
		}
	}
	var es []*raftpb.Entry
	if from > 0 {
		es = entries(api.Index(from), api.Index(max(from, to)), api.Term(term), int(number(t, d, "size")))
	}
	return x.w.Append(hs, es)
}

// crash keep=(all|none|some) [seed=]: all is the end of the process alone.
func (x *script) crash(t *testing.T, d *datadriven.TestData) {
	switch keep := text(t, d, "keep"); keep {
	case "all":
		x.use(x.mem.Clone())
	case "none":
		x.use(x.mem.DurableClone())
	case "some":
		x.use(x.mem.CrashClone(rand.New(rand.NewPCG(number(t, d, "seed"), 0))))
	default:
		d.Fatalf(t, "keep=%s", keep)
	}
}

// hurt file= off= (zero= bytes | flip): a medium that fails.
func (x *script) hurt(t *testing.T, d *datadriven.TestData) error {
	name, off := path(testDir, text(t, d, "file")), int64(number(t, d, "off"))
	if n := number(t, d, "zero"); n > 0 {
		return x.mem.Damage(name, off, make([]byte, n))
	}
	f, err := x.mem.Open(name)
	if err != nil {
		return err
	}
	var p [1]byte
	if _, err := f.ReadAt(p[:], off); err != nil {
		return err
	}
	p[0] ^= 1
	return x.mem.Damage(name, off, p[:])
}

func (x *script) dump(out *strings.Builder) {
	_, err := Inspect(x.mem, testDir, func(r Record) {
		fmt.Fprintf(out, "%d @%d+%d %s %d/%d", r.Segment, r.Offset, r.Size, r.Kind, r.A, r.B)
		if r.Kind == "footer" || r.Kind == "state" {
			fmt.Fprintf(out, " synced=%d last=%d %+v", r.Synced, r.Last, r.State)
		}
		fmt.Fprintln(out)
	})
	if err != nil {
		fmt.Fprintf(out, "verdict: %v\n", err)
	}
}

// TestOnRealFiles runs the protocol on the machine's own file system.
func TestOnRealFiles(t *testing.T) {
	dir := t.TempDir()
	fs := vfs.OS()
	w, err := Create(fs, path(dir, testDir), testID, testOpt)
	check(t, err)
	check(t, w.Append(&HardState{Term: 1}, nil))
	for i := api.Index(1); i < 200; i++ {
		check(t, w.Append(&HardState{Term: 1, Commit: i}, entries(i, i, 1, 700)))
		check(t, w.Sync())
		if i == 100 {
			check(t, w.Release(50))
		}
	}
	if !slices.ContainsFunc(w.mu.table.segs, func(s *segment) bool { return s.older > 0 }) {
		t.Fatal("no segment took the released file over")
	}
	want := content(w)
	check(t, w.Close())
	info, err := os.Stat(path(dir, testDir))
	check(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v", info.Mode())
	}
	w, _, err = Open(fs, path(dir, testDir), testID, testOpt)
	check(t, err)
	if got := content(w); got != want || w.First() < 2 || w.First() > 51 {
		t.Fatalf("first %d\n%s\n%s", w.First(), got, want)
	}
	check(t, w.Reset(Position{1000, 3}))
	check(t, w.Close())
	w, r, err := Open(fs, path(dir, testDir), testID, testOpt)
	check(t, err)
	if r.Start != (Position{1000, 3}) || r.HardState != (HardState{Term: 3, Commit: 1000}) {
		t.Fatalf("%+v", r)
	}
	check(t, w.Close())
}
