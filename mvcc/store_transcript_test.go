package mvcc

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// TestStoreTranscripts runs testdata/store. The commands, of which those that
// change the store are one log entry each, and are replayed after a crash:
//
//	txn            lines: put KEY VALUE [lease=ID] · delete KEY [END] · get KEY
//	grant id=N ttl=N · revoke id=N · checkpoint id=N remaining=N · compact rev=N
//	unpublished    the same lines as txn, sealed but not published; then publish
//	read [at=N]    all keys; [key=K] [end=E] a range; count; pin
//	lookup         lines: KEY; hold/held: keep a read transaction over other commands
//	history from=N · leases · flush · trim (one step of compaction) · crash · stats · records
//
// Every file ends with Check.
func TestStoreTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/store", func(t *testing.T, path string) {
		w := &transcript{t: t, mem: engine.NewMemory()}
		w.open()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t = t
			out := w.run(d)
			mustCheck(t, w.s)
			return out
		})
	})
}

type transcript struct {
	t    *testing.T
	mem  *engine.Memory
	s    *Store
	log  []func(*WriteTxn) string
	held *ReadTxn
}

func (w *transcript) open() { w.s = openOn(w.t, w.mem, 2) }

// entry applies one log entry.
func (w *transcript) entry(fn func(*WriteTxn) string, publish bool) string {
	w.log = append(w.log, fn)
	return w.apply(fn, api.Index(len(w.log)), publish)
}

func (w *transcript) apply(fn func(*WriteTxn) string, index api.Index, publish bool) string {
	x := w.s.Begin()
	out := fn(x)
	r := x.End()
	w.s.Seal(index, 1)
	if publish {
		w.s.Publish()
	}
	return out + fmt.Sprintf("revision %d, changed %v\n", r.Revision, r.Changed)
}

func outcome(err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	return ""
}

func (w *transcript) run(d *datadriven.TestData) string {
	switch d.Cmd {
	case "txn", "unpublished":
		input := d.Input
		return w.entry(func(x *WriteTxn) string { return txnLines(w.t, x, input) }, d.Cmd == "txn")
	case "publish":
		w.s.Publish()
		return fmt.Sprintf("revision %d\n", w.s.Revision())
	case "grant":
		id, ttl := intArg(w.t, d, "id", 0), intArg(w.t, d, "ttl", 0)
		return w.entry(func(x *WriteTxn) string { return outcome(x.LeaseGrant(api.LeaseID(id), ttl)) }, true)
	case "revoke":
		id := intArg(w.t, d, "id", 0)
		return w.entry(func(x *WriteTxn) string { return outcome(x.LeaseRevoke(api.LeaseID(id))) }, true)
	case "checkpoint":
		id, left := intArg(w.t, d, "id", 0), intArg(w.t, d, "remaining", 0)
		return w.entry(func(x *WriteTxn) string { x.LeaseCheckpoint(api.LeaseID(id), left); return "" }, true)
	case "compact":
		rev := intArg(w.t, d, "rev", 0)
		return w.entry(func(x *WriteTxn) string { return outcome(x.Compact(api.Revision(rev))) }, true)
	case "read", "hold":
		x, err := w.s.Read(api.Revision(intArg(w.t, d, "at", 0)))
		if err != nil {
			return outcome(err)
		}
		if d.Cmd == "hold" {
			w.held = x
			return fmt.Sprintf("at %d of %d\n", x.At(), x.Revision())
		}
		defer x.Release()
		return w.readLines(d, x)
	case "held":
		return w.readLines(d, w.held)
	case "release":
		w.held.Release()
		return ""
	}
	return w.maintain(d)
}

func (w *transcript) maintain(d *datadriven.TestData) string {
	switch d.Cmd {
	case "history":
		var b strings.Builder
		err := w.s.History(api.Revision(intArg(w.t, d, "from", 0)), 1<<62, func(e *Event) bool {
			kind := "put"
			if e.Delete {
				kind = "delete"
			} else if e.Create {
				kind = "create"
			}
			fmt.Fprintf(&b, "%d.%d %s %s", e.Rev, e.Sub, kind, line(w.t, e.KV))
			if err := e.FixPrev(); err != nil {
				fmt.Fprintf(&b, " (before: %v)", err)
			} else if e.Prev != nil {
				fmt.Fprintf(&b, " (before: %s)", line(w.t, e.Prev))
			}
			b.WriteByte('\n')
			return true
		})
		return b.String() + outcome(err)
	case "leases":
		var b strings.Builder
		for _, id := range w.s.Leases() {
			l, _ := w.s.Lease(id)
			fmt.Fprintf(&b, "%d: ttl %d, remaining %d, keys %q\n", l.ID, l.TTL, l.Remaining, l.Keys())
		}
		return b.String()
	case "flush":
		if err := w.s.Flush(); err != nil {
			w.t.Fatal(err)
		}
		return fmt.Sprintf("durable %d\n", w.s.Durable())
	case "trim":
		more, err := w.s.CompactStep()
		return outcome(err) + fmt.Sprintf("more %v\n", more)
	case "crash":
		w.mem = w.mem.Crash()
		w.open()
		out := fmt.Sprintf("back at index %d, revision %d, compacted %d\n", w.s.Durable(), w.s.Revision(), w.s.CompactRevision())
		if !d.HasArg("noreplay") {
			for i := w.s.Durable(); int(i) < len(w.log); i++ {
				w.apply(w.log[i], i+1, true)
			}
			out += fmt.Sprintf("replayed to index %d, revision %d\n", len(w.log), w.s.Revision())
		}
		return out
	case "stats":
		st := w.s.Stats()
		return fmt.Sprintf("keys %d, revisions %d, queue %d, tail %v\n", st.Keys, st.Revisions, st.CompactionQueue, st.TailBytes > 0)
	case "records":
		return w.stored()
	}
	w.t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

// stored lists what is in the engine.
func (w *transcript) stored() string {
	var b strings.Builder
	v, err := w.mem.View()
	if err != nil {
		w.t.Fatal(err)
	}
	defer v.Release()
	v.Scan(engine.Key, nil, nil, func(k, value []byte) bool {
		rev, err := parseRevision(k)
		if err != nil {
			w.t.Fatal(err)
		}
		rec, err := verify(k, value, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%d.%d tombstone=%v %s\n", rev.main, rev.sub, rev.tomb, line(w.t, rec))
		return true
	})
	v.Scan(engine.Meta, nil, nil, func(k, value []byte) bool {
		fmt.Fprintf(&b, "%s = %x\n", k, value)
		return true
	})
	v.Scan(engine.Lease, nil, nil, func(k, value []byte) bool {
		fmt.Fprintf(&b, "lease %x = %x\n", k, value)
		return true
	})
	return b.String()
}

func txnLines(t *testing.T, x *WriteTxn, input string) string {
	var b strings.Builder
	for _, l := range strings.Split(input, "\n") {
		f := strings.Fields(l)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "put":
			var lease int64
			if len(f) > 3 {
				lease = mustInt(t, strings.TrimPrefix(f[3], "lease="))
			}
			prev, had := x.Put([]byte(f[1]), []byte(f[2]), api.LeaseID(lease))
			if had {
				fmt.Fprintf(&b, "%s was at %d, version %d\n", f[1], prev.Mod, prev.Version)
			}
		case "delete":
			end := ""
			if len(f) > 2 {
				end = f[2]
			}
			n := x.DeleteRange([]byte(f[1]), unquote(end), func(it Item) {
				rec, err := x.Record(it)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&b, "deletes %s\n", line(t, rec))
			})
			fmt.Fprintf(&b, "deleted %d\n", n)
		case "get":
			it, ok := x.Get([]byte(f[1]))
			if !ok {
				fmt.Fprintf(&b, "%s is not there\n", f[1])
				continue
			}
			rec, err := x.Record(it)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s at revision %d\n", line(t, rec), x.Revision())
		case "scan":
			at := api.Revision(mustInt(t, f[1]))
			if err := x.Readable(at); err != nil {
				b.WriteString(outcome(err))
				continue
			}
			x.Scan([]byte{0}, []byte{0}, at, func(it Item) bool {
				fmt.Fprintf(&b, "%s %d/%d/%d\n", it.Key, it.Create, it.Mod, it.Version)
				return true
			})
			fmt.Fprintf(&b, "counted %d\n", x.Count([]byte{0}, []byte{0}, at))
		default:
			t.Fatalf("unknown operation %s", f[0])
		}
	}
	return b.String()
}

func (w *transcript) readLines(d *datadriven.TestData, x *ReadTxn) string {
	key, end := "\x00", "\x00"
	if d.HasArg("key") {
		d.ScanArgs(w.t, "key", &key)
		end = ""
	}
	if d.HasArg("end") {
		d.ScanArgs(w.t, "end", &end)
	}
	if d.HasArg("pin") {
		x.Pin()
	}
	var b strings.Builder
	if !d.HasArg("count") {
		x.Scan([]byte(key), unquote(end), func(it Item) bool {
			rec, err := x.Record(it)
			if err != nil {
				w.t.Fatal(err)
			}
			b.WriteString(line(w.t, rec) + "\n")
			return true
		})
	}
	fmt.Fprintf(&b, "%d keys at %d of %d\n", x.Count([]byte(key), unquote(end)), x.At(), x.Revision())
	return b.String()
}

func unquote(s string) []byte { return []byte(strings.ReplaceAll(s, `\0`, "\x00")) }

func line(t *testing.T, rec Record) string {
	kv := &mvccpb.KeyValue{}
	if err := proto.Unmarshal(rec, kv); err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprintf("%s=%s create %d mod %d version %d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		s += fmt.Sprintf(" lease %d", kv.Lease)
	}
	return s
}

func intArg(t *testing.T, d *datadriven.TestData, name string, otherwise int64) int64 {
	if !d.HasArg(name) {
		return otherwise
	}
	var s string
	d.ScanArgs(t, name, &s)
	return mustInt(t, s)
}

func mustInt(t *testing.T, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// runStore starts the flusher and returns a function that stops it.
func runStore(t testing.TB, s *Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
