package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// testSnapshot is a store's state made of random bytes.
type testSnapshot struct {
	data     []byte
	claim    int64 // its Size, if it lies
	fail     error // returned after half of the data
	released atomic.Bool
}

func newTestSnapshot(size int) *testSnapshot {
	s := &testSnapshot{data: make([]byte, size), claim: int64(size)}
	rng := rand.NewChaCha8([32]byte{7})
	rng.Read(s.data)
	return s
}

func (s *testSnapshot) Meta() SnapshotMeta {
	return SnapshotMeta{Index: 70, Term: 3, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}
}
func (s *testSnapshot) Size() int64 { return s.claim }
func (s *testSnapshot) Release()    { s.released.Store(true) }
func (s *testSnapshot) WriteTo(w io.Writer) (int64, error) {
	if s.fail != nil {
		n, _ := w.Write(s.data[:len(s.data)/2])
		return int64(n), s.fail
	}
	return io.Copy(w, bytes.NewReader(s.data))
}

func envelope(from, to api.MemberID) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: proto.Uint64(uint64(from)), To: proto.Uint64(uint64(to)), Term: proto.Uint64(4),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(70), Term: proto.Uint64(3), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		}},
	}
}

var testIdentity = identity{cluster: 9, from: 1, to: 2}

// parts returns all parts of a snapshot as they are on the wire.
func parts(t testing.TB, s Snapshot) [][]byte {
	t.Helper()
	m, err := newManifest(testIdentity, envelope(1, 2), s)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	err = writeSnapshot(m, s, (&hurry{}).size, func(b mem.Buffer) error {
		all = append(all, bytes.Clone(b.ReadOnlyData()))
		b.Free()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// offer gives the parts to a new receiver and returns what it made of them.
func offer(d *snapshotDir, all [][]byte) (*receiver, error) {
	r := d.receive(testIdentity)
	for _, b := range all {
		done, err := r.take(b)
		if done || err != nil {
			return r, err
		}
	}
	return r, io.ErrUnexpectedEOF
}

func testDir(t testing.TB) *snapshotDir {
	t.Helper()
	d, err := openSnapshotDir(vfs.NewMem(1), "/snap")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fileContent(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && size > 0 {
		t.Fatal(err)
	}
	return b
}

func TestSnapshotArrivesWhole(t *testing.T) {
	for _, size := range []int{0, 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 77, syncEvery + 5} {
		s, d := newTestSnapshot(size), testDir(t)
		all := parts(t, s)
		r, err := offer(d, all)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if !bytes.Equal(fileContent(t, d.fs, r.path), s.data) {
			t.Fatalf("size %d: the file differs", size)
		}
		if want := 2 + (size+chunkBytes-1)/chunkBytes; len(all) != want {
			t.Fatalf("size %d: %d parts, want %d", size, len(all), want)
		}
		if r.meta.Index != 70 || r.meta.Term != 3 || !proto.Equal(r.meta.ConfState, s.Meta().ConfState) || !proto.Equal(r.msg, envelope(1, 2)) {
			t.Fatalf("meta %v, envelope %v", r.meta, r.msg)
		}
	}
}

// A received file must survive a power cut that comes right after it was handed over.
func TestSnapshotIsDurableWhenHandedOver(t *testing.T) {
	fs := vfs.NewMem(1)
	d, err := openSnapshotDir(fs, "/snap")
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	s := newTestSnapshot(2*chunkBytes + 5)
	r, err := offer(d, parts(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(20) {
		after := fs.CrashClone(rand.New(rand.NewPCG(seed, 1)))
		if !bytes.Equal(fileContent(t, after, r.path), s.data) {
			t.Fatalf("seed %d: the file is damaged after a crash", seed)
		}
	}
}

func TestSnapshotDamageIsRefused(t *testing.T) {
	all := parts(t, newTestSnapshot(3*chunkBytes+100))
	clone := func() [][]byte {
		c := make([][]byte, len(all))
		for i := range all {
			c[i] = bytes.Clone(all[i])
		}
		return c
	}
	other := parts(t, newTestSnapshot(2*chunkBytes))
	cases := map[string]func(p [][]byte) [][]byte{
		"lost chunk":      func(p [][]byte) [][]byte { return append(p[:2], p[3:]...) },
		"repeated chunk":  func(p [][]byte) [][]byte { return append(p[:2], append([][]byte{p[1]}, p[2:]...)...) },
		"swapped chunks":  func(p [][]byte) [][]byte { p[1], p[2] = p[2], p[1]; return p },
		"no manifest":     func(p [][]byte) [][]byte { return p[1:] },
		"two manifests":   func(p [][]byte) [][]byte { return append(p[:1], p...) },
		"lost last chunk": func(p [][]byte) [][]byte { return append(p[:len(p)-2], p[len(p)-1]) },
		"cut short":       func(p [][]byte) [][]byte { return p[:len(p)-1] },
		"other's end":     func(p [][]byte) [][]byte { return append(p[:len(p)-1], other[len(other)-1]) },
		"other's digest": func(p [][]byte) [][]byte {
			last := p[len(p)-1]
			copy(last[partHeader:], other[len(other)-1][partHeader:])
			sealPart(last, partEnd, 3*chunkBytes+100)
			return p
		},
		"resealed chunk": func(p [][]byte) [][]byte { // damaged in memory, before its checksum was made
			p[2][partHeader+9] ^= 1
			sealPart(p[2], partChunk, chunkBytes)
			return p
		},
		"chunk beyond the size": func(p [][]byte) [][]byte {
			more := make([]byte, partHeader+10)
			sealPart(more, partChunk, 3*chunkBytes+100)
			return append(p[:len(p)-1], more, p[len(p)-1])
		},
	}
	for name, damage := range cases {
		d := testDir(t)
		r, err := offer(d, damage(clone()))
		if err == nil {
			t.Fatalf("%s: accepted", name)
		}
		expectEmpty(t, d, r)
	}
}

// Every single flipped bit of a small snapshot is seen.
func TestSnapshotBitFlipsAreRefused(t *testing.T) {
	all := parts(t, newTestSnapshot(50))
	for i := range all {
		for bit := range 8 * len(all[i]) {
			all[i][bit/8] ^= 1 << (bit % 8)
			d := testDir(t)
			r, err := offer(d, all)
			if !errors.Is(err, errMalformed) {
				t.Fatalf("part %d, bit %d: %v", i, bit, err)
			}
			expectEmpty(t, d, r)
			all[i][bit/8] ^= 1 << (bit % 8)
		}
	}
}

func expectEmpty(t *testing.T, d *snapshotDir, r *receiver) {
	t.Helper()
	if err := r.abort(); err != nil {
		t.Fatal(err)
	}
	entries, err := d.fs.List(d.dir)
	if err != nil || len(entries) != 0 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
}

func TestSnapshotManifestIsChecked(t *testing.T) {
	good, err := newManifest(testIdentity, envelope(1, 2), newTestSnapshot(1))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(m *manifest){
		"version":        func(m *manifest) { m.Version++ },
		"cluster":        func(m *manifest) { m.Cluster++ },
		"from":           func(m *manifest) { m.From++ },
		"to":             func(m *manifest) { m.To++ },
		"size":           func(m *manifest) { m.Size = -1 },
		"index 0":        func(m *manifest) { m.Index = 0 },
		"other index":    func(m *manifest) { m.Index++ },
		"other term":     func(m *manifest) { m.Term++ },
		"membership":     func(m *manifest) { m.ConfState = []byte{0xff} },
		"envelope":       func(m *manifest) { m.Envelope = []byte{0xff} },
		"empty envelope": func(m *manifest) { m.Envelope = nil },
	}
	for name, change := range cases {
		m := *good
		change(&m)
		if _, _, err := m.check(testIdentity); !errors.Is(err, errMalformed) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	body, err := good.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeManifest(body)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := back.check(testIdentity); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotNeedsSpace(t *testing.T) {
	fs := vfs.NewMem(1)
	fs.SetSpace(spareBytes + 1000)
	d, err := openSnapshotDir(fs, "/snap")
	if err != nil {
		t.Fatal(err)
	}
	r, err := offer(d, parts(t, newTestSnapshot(2000)))
	if !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("got %v", err)
	}
	expectEmpty(t, d, r)
}

// Each call of the file system fails once, applied and not: no file is handed
// over and none stays.
func TestSnapshotFileErrors(t *testing.T) {
	all := parts(t, newTestSnapshot(2*chunkBytes))
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpPreallocate, vfs.OpWrite, vfs.OpSync, vfs.OpClose, vfs.OpSyncDir} {
		for _, apply := range []bool{false, true} {
			if op == vfs.OpCreate && apply {
				continue // the call says that there is no file; the next start removes it
			}
			fs := vfs.NewMem(1)
			if _, err := openSnapshotDir(fs, "/snap"); err != nil {
				t.Fatal(err)
			}
			boom := errors.New("boom")
			d := &snapshotDir{fs: vfs.NewFault(fs, vfs.Rule{Op: op, Nth: 1, Err: boom, Apply: apply}), dir: "/snap"}
			r, err := offer(d, all)
			if !errors.Is(err, boom) {
				t.Fatalf("%v: %v", op, err)
			}
			_ = r.abort()
			if entries, _ := fs.List("/snap"); len(entries) != 0 {
				t.Fatalf("%v: left behind %v", op, entries)
			}
		}
	}
}

// The golden list of a received snapshot: the digest is checked before the last
// sync, a portion has its own, and both file and directory are durable before anybody hears of it.
func TestSnapshotFileCalls(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem(1))
	d, err := openSnapshotDir(fault, "/snap")
	if err != nil {
		t.Fatal(err)
	}
	fault.TakeCalls()
	if _, err := offer(d, parts(t, newTestSnapshot(chunkBytes+1))); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range fault.TakeCalls() {
		got = append(got, c.String())
	}
	file := "incoming-0000000000000003-0000000000000046-1-1"
	want := []string{
		"free snap", "create " + file, "preallocate " + file + " 262145",
		"write " + file + " 0+262144", "sync " + file, "write " + file + " 262144+1",
		"sync " + file, "close " + file, "syncdir snap",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSnapshotLeftoversAreRemoved(t *testing.T) {
	fs := vfs.NewMem(1)
	d, err := openSnapshotDir(fs, "/snap")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Create("/snap/db"); err != nil {
		t.Fatal(err)
	}
	r := d.receive(testIdentity)
	for _, b := range parts(t, newTestSnapshot(2*chunkBytes))[:2] {
		if _, err := r.take(b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openSnapshotDir(fs, "/snap"); err != nil {
		t.Fatal(err)
	}
	entries, err := fs.List("/snap")
	if err != nil || len(entries) != 1 || entries[0].Name != "db" {
		t.Fatalf("%v, %v", entries, err)
	}
}

func TestSnapshotSenderErrors(t *testing.T) {
	m, err := newManifest(testIdentity, envelope(1, 2), newTestSnapshot(10))
	if err != nil {
		t.Fatal(err)
	}
	discard := func(b mem.Buffer) error { b.Free(); return nil }
	if err := writeSnapshot(m, newTestSnapshot(11), (&hurry{}).size, discard); err == nil || !strings.Contains(err.Error(), "wrote 11") {
		t.Fatalf("a snapshot of another size than it said: %v", err)
	}
	broken := newTestSnapshot(10)
	broken.fail = errors.New("unreadable page")
	if err := writeSnapshot(m, broken, (&hurry{}).size, discard); !errors.Is(err, broken.fail) {
		t.Fatalf("an unreadable snapshot: %v", err)
	}
	wrong := envelope(1, 2)
	wrong.Snapshot.Metadata.Index = proto.Uint64(71)
	if _, err := newManifest(testIdentity, wrong, newTestSnapshot(1)); err == nil {
		t.Fatal("an envelope of another index was sealed")
	}
}

func TestMemorySnapshot(t *testing.T) {
	n, nodes, recs := memoryTrio(t, clock.System())
	fs := vfs.NewMem(1)
	nodes[1].Store(fs, "/snap")
	s := newTestSnapshot(chunkBytes + 9)
	nodes[0].SendSnapshot(2, envelope(1, 2), s)
	recs[0].await(t, 1, "snapshot to 2 sent true")
	recs[1].await(t, 1, "snapshot 70/3 from 1")
	if !bytes.Equal(fileContent(t, fs, recs[1].mu.path), s.data) || !s.released.Load() {
		t.Fatal("the file differs, or the snapshot was not released")
	}
	n.Cut(1, 2)
	nodes[0].SendSnapshot(2, envelope(1, 2), newTestSnapshot(10))
	recs[0].await(t, 1, "snapshot to 2 sent false")
	nodes[0].SendSnapshot(3, envelope(1, 3), newTestSnapshot(10)) // it has nowhere to store it
	recs[0].await(t, 1, "snapshot to 3 sent false")
}
