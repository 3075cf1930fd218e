package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const pageBytes = 4096

func (s site) db() string { return filepath.Join(s.dir, "member", "snap", "db") }

// spoil changes the member's database file in place. at lists where the text
// stands in it: once in the tree, and perhaps in pages that are free.
func (s site) spoil(t *testing.T, text string, change func(b []byte, at []int) []byte) {
	t.Helper()
	b, err := os.ReadFile(s.db())
	if err != nil {
		t.Fatal(err)
	}
	var at []int
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(text))
		if i < 0 {
			break
		}
		at = append(at, from+i)
		from += i + 1
	}
	if len(at) == 0 {
		t.Fatalf("%q is not in %s", text, s.db())
	}
	if err := os.WriteFile(s.db(), change(b, at), 0o600); err != nil {
		t.Fatal(err)
	}
}

// damages are the ways in which a database file comes to harm.
var damages = map[string]func(b []byte, at []int) []byte{
	"header pages zeroed": func(b []byte, _ []int) []byte {
		clear(b[:2*pageBytes])
		return b
	},
	"a leaf page's head overwritten": func(b []byte, at []int) []byte {
		for _, i := range at {
			copy(b[i&^(pageBytes-1):], bytes.Repeat([]byte{0xA5}, 24))
		}
		return b
	},
	"a byte of a value changed": func(b []byte, at []int) []byte {
		for _, i := range at {
			b[i] ^= 0x20
		}
		return b
	},
	// The second half of the file may be unused.
	"cut in half":    func(b []byte, at []int) []byte { return b[:min(len(b)/2, at[0]&^(pageBytes-1))] },
	"cut to nothing": func([]byte, []int) []byte { return nil },
	"a sector zeroed": func(b []byte, at []int) []byte {
		for _, i := range at {
			clear(b[i&^511:][:512])
		}
		return b
	},
}

// equalHashes waits until all members hold the same history at the same revision.
func equalHashes(t *testing.T, sites []site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		seen := map[string]bool{}
		for _, s := range sites {
			h, err := pb.NewMaintenanceClient(dial(t, s.client)).HashKV(ctx, &pb.HashKVRequest{}, grpc.WaitForReady(true))
			if err != nil {
				t.Fatal(err)
			}
			seen[fmt.Sprint(h.Hash, h.HashRevision, h.CompactRevision)] = true
		}
		if len(seen) == 1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the members hold different histories")
}

// trio is three members whose processes a test starts and ends.
type trio struct {
	t     *testing.T
	sites []site
	procs []*process
	more  []string // flags
}

func startTrio(t *testing.T, more ...string) *trio {
	t.Helper()
	c := &trio{t: t, sites: []site{newSite(t), newSite(t), newSite(t)}, procs: make([]*process, 3), more: more}
	for i := range c.sites {
		c.start(i)
	}
	for i := range c.sites {
		c.sites[i].await(t, c.procs[i])
	}
	return c
}

func (c *trio) start(i int) {
	var initial []string
	for n, s := range c.sites {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", n, s.peer))
	}
	args := append([]string{fmt.Sprintf("--name=m%d", i), "--initial-cluster=" + strings.Join(initial, ",")}, c.more...)
	c.procs[i] = c.sites[i].start(c.t, args...)
}

// stop ends a member so that its database holds all that it applied.
func (c *trio) stop(i int) {
	c.t.Helper()
	c.procs[i].signal(syscall.SIGTERM)
	if code := c.procs[i].code(); code != exitOK {
		c.t.Fatalf("member %d ended with %d", i, code)
	}
}

// load writes and reads back through a member until stopped; it fails when a
// request does.
func (c *trio) load(through int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	kv := pb.NewKVClient(dial(c.t, c.sites[through].client))
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			call, end := context.WithTimeout(context.Background(), patience)
			key := fmt.Appendf(nil, "load-%03d", n%100)
			_, err := kv.Put(call, &pb.PutRequest{Key: key, Value: fmt.Append(nil, n)})
			if err == nil {
				_, err = kv.Range(call, &pb.RangeRequest{Key: key})
			}
			if end(); err != nil {
				c.t.Errorf("request %d of the load: %v", n, err)
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// TestDamagedStoreIsRebuilt damages the database of a stopped member in many ways.
// The others go on all the time; the member puts the file aside, says so, and is
// equal to them again.
func TestDamagedStoreIsRebuilt(t *testing.T) {
	c := startTrio(t)
	const text = "the-value-that-is-hurt"
	for i := range 300 {
		put(t, c.sites[i%3].client, fmt.Sprintf("key-%03d", i), strings.Repeat("v", 100))
	}
	rounds := 0
	for name, damage := range damages {
		hurt, through := 1+rounds%2, 0
		rounds++
		put(t, c.sites[hurt].client, "hurt", fmt.Sprint(text, rounds))
		c.stop(hurt)
		stop := c.load(through)
		c.sites[hurt].spoil(t, fmt.Sprint(text, rounds), damage)
		put(t, c.sites[through].client, "meanwhile", name)
		c.start(hurt)
		c.procs[hurt].says("the stored state is damaged; it is put aside")
		c.procs[hurt].says("repaired the stored data")
		c.sites[hurt].await(t, c.procs[hurt])
		stop()
		if value, _ := get(t, c.sites[hurt].client, "meanwhile"); value != name {
			t.Errorf("%s: the member reads %q", name, value)
		}
		if value, _ := get(t, c.sites[hurt].client, "hurt"); value != fmt.Sprint(text, rounds) {
			t.Errorf("%s: the value that was hurt reads %q", name, value)
		}
		equalHashes(t, c.sites)
	}
	for _, s := range c.sites[1:] {
		if kept, _ := filepath.Glob(s.db() + ".damaged-*"); len(kept) != 2 {
			t.Errorf("kept of the damaged files: %q", kept)
		}
		if _, err := os.Stat(filepath.Join(s.dir, "member", "rebuild")); !os.IsNotExist(err) {
			t.Errorf("the mark stays: %v", err)
		}
	}
	// The votes of the rebuilt members count.
	c.stop(0)
	put(t, c.sites[1].client, "after", "after")
	if value, _ := get(t, c.sites[2].client, "after"); value != "after" {
		t.Errorf("the others read %q", value)
	}
}

// TestDamagedStoreOfOneMember: nobody can help, so nothing is touched.
func TestDamagedStoreOfOneMember(t *testing.T) {
	for name, damage := range damages {
		s := newSite(t)
		p := s.start(t)
		s.await(t, p)
		put(t, s.client, "a", "the-only-copy")
		p.signal(syscall.SIGTERM)
		p.code()
		s.spoil(t, "the-only-copy", damage)
		before, err := os.ReadFile(s.db())
		if err != nil {
			t.Fatal(err)
		}
		expect(t, name, s.start(t), exitDamaged, "no other member can repair it")
		if after, err := os.ReadFile(s.db()); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
}

// TestDamageFoundByRead: the reader gets an error, and the member rebuilds its
// state without being started again by anybody.
func TestDamageFoundByRead(t *testing.T) {
	c := startTrio(t)
	const text = "the-value-that-is-hurt"
	put(t, c.sites[2].client, "hurt", text) // there, so that this member has applied it
	c.stop(2)                               // and start, so that the database has it
	c.start(2)
	c.sites[2].await(t, c.procs[2])
	c.procs[2].says("ready to serve client requests")
	c.sites[2].spoil(t, text, damages["a byte of a value changed"])
	defer c.load(0)()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := pb.NewKVClient(dial(t, c.sites[2].client)).Range(ctx, &pb.RangeRequest{Key: []byte("hurt"), Serializable: true})
	if status.Code(err) != codes.DataLoss {
		t.Errorf("the read ends with %v", err)
	}
	c.procs[2].says("this member stops to rebuild its state")
	c.procs[2].says("repaired the stored data")
	if value, _ := get(t, c.sites[2].client, "hurt"); value != text {
		t.Errorf("it reads %q", value)
	}
}

// falsify changes a value in a member's database, with its checksum, and the
// rolling hash: a state that is sound, but not the others'.
func (s site) falsify(t *testing.T, old, changed string) {
	t.Helper()
	db, err := bbolt.Open(s.db(), 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	table := crc32.MakeTable(crc32.Castagnoli)
	err = db.Update(func(tx *bbolt.Tx) error {
		chain := bytes.Clone(tx.Bucket([]byte("meta")).Get([]byte("keelson_rolling_hash")))
		chain[16] ^= 1
		binary.BigEndian.PutUint32(chain[24:], crc32.Checksum(chain[:24], table))
		if err := tx.Bucket([]byte("meta")).Put([]byte("keelson_rolling_hash"), chain); err != nil {
			return err
		}
		keys := tx.Bucket([]byte("key"))
		return keys.ForEach(func(k, v []byte) error {
			i := bytes.Index(v, []byte(old))
			if i < 0 {
				return nil
			}
			v = bytes.Clone(v)
			copy(v[i:], changed)
			end := len(v) - 4
			binary.LittleEndian.PutUint32(v[end:], crc32.Update(crc32.Update(0, table, k), table, v[:end-2]))
			return keys.Put(bytes.Clone(k), v)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDivergentMemberRebuilds: a majority names the member whose history differs.
// It takes theirs, and the alarm that froze the cluster goes.
func TestDivergentMemberRebuilds(t *testing.T) {
	c := startTrio(t, "--rolling-hash-check-time=500ms")
	put(t, c.sites[2].client, "k", "the-right-value")
	c.stop(2)
	c.sites[2].falsify(t, "the-right-value", "the-wrong-value")
	c.start(2)
	c.procs[2].says("this member stops to rebuild its state")
	c.procs[2].says("a majority of the members agrees that this one's state differs")
	c.procs[2].says("repaired the stored data")
	c.sites[2].await(t, c.procs[2])
	if value, _ := get(t, c.sites[2].client, "k"); value != "the-right-value" {
		t.Errorf("it reads %q", value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := pb.NewMaintenanceClient(dial(t, c.sites[0].client)).Alarm(ctx, &pb.AlarmRequest{})
	if err != nil || len(resp.Alarms) != 0 {
		t.Errorf("alarms: %v, %v", resp, err)
	}
	put(t, c.sites[2].client, "after", "after")
	equalHashes(t, c.sites)
}
