//go:build linux

package real

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
	"github.com/keelson-io/keelson/server"
)

// errNoStart: no member has the log from its first entry on; oracles that replay
// it cannot be asked.
var errNoStart = errors.New("no member has the log from its first entry on")

// remains reads what stopped members have left: the log that they agree on, and
// the state of each.
func remains(members []*Member, h *history.History) error {
	h.States = nil
	applied := api.Index(0)
	for _, m := range members {
		st, err := m.state()
		if err != nil {
			return fmt.Errorf("O4: the store of %s: %w", m.Name, err)
		}
		h.States = append(h.States, st)
		applied = max(applied, api.Index(st.Index))
	}
	entries, err := mergeLogs(members, applied)
	if err != nil {
		return err
	}
	if h.Log, err = readLog(entries); err != nil {
		return err
	}
	attribute(h)
	stamp(h)
	sameEnd(h)
	return nil
}

// state reads a stopped member's store.
func (m *Member) state() (st history.State, err error) {
	e, err := engine.OpenBolt(filepath.Join(m.dataDir(), "member", "snap", "db"), engine.BoltOptions{ReadOnly: true})
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: e})
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if problems := s.Check(); len(problems) > 0 {
		return st, errors.Join(problems...)
	}
	index, _ := s.Applied()
	st = history.State{
		Member: m.ID, Index: uint64(index), Revision: int64(s.Revision()), Compact: int64(s.CompactRevision()),
		Leases: map[int64]int64{}, Rows: map[string]string{},
	}
	if st.Keys, err = liveKeys(s); err != nil {
		return st, err
	}
	hash, _, err := s.HashKV(context.Background(), 0)
	if err != nil {
		return st, err
	}
	st.Hash = hash.Hash
	for _, id := range s.Leases() {
		info, _ := s.Lease(id)
		st.Leases[int64(id)] = info.TTL
	}
	for _, b := range rows {
		s.Raw(b, func(k, v []byte) bool {
			st.Rows[fmt.Sprintf("%s/%x", b, k)] = string(v)
			return true
		})
	}
	return st, nil
}

func liveKeys(s *mvcc.Store) (out []history.KV, err error) {
	t, err := s.Read(0)
	if err != nil {
		return nil, err
	}
	defer t.Release()
	t.Scan([]byte{0}, []byte{0}, func(it mvcc.Item) bool {
		rec, e := t.Record(it)
		kv := &mvccpb.KeyValue{}
		if e == nil {
			e = proto.Unmarshal(rec, kv)
		}
		err = e
		out = append(out, history.KV{
			Key: string(kv.Key), Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Lease: kv.Lease,
		})
		return err == nil
	})
	return out, err
}

// rows are the buckets beside keys that all members must agree on.
var rows = []engine.Bucket{engine.Lease, engine.Alarm, engine.Auth, engine.AuthUsers, engine.AuthRoles, engine.Members, engine.MembersRemoved, engine.Cluster}

// mergeLogs joins the logs of all members up to an entry that is surely committed,
// and demands that they agree where two have an entry.
func mergeLogs(members []*Member, upTo api.Index) ([]*raftpb.Entry, error) {
	var merged []*raftpb.Entry
	for _, m := range members {
		own, err := m.entries(upTo)
		if err != nil {
			return nil, fmt.Errorf("O4: the log of %s: %w", m.Name, err)
		}
		for _, e := range own {
			i := int(e.GetIndex()) - 1
			if i >= len(merged) {
				merged = slices.Grow(merged, i+1-len(merged))[:i+1]
			}
			switch was := merged[i]; {
			case was == nil:
				merged[i] = e
			case was.GetTerm() != e.GetTerm() || !bytes.Equal(was.GetData(), e.GetData()):
				return nil, fmt.Errorf("O6: entry %d of %s is of term %d, and differs from that of another member, of term %d", i+1, m.Name, e.GetTerm(), was.GetTerm())
			}
		}
	}
	for i, e := range merged {
		if e == nil {
			return nil, fmt.Errorf("%w: entry %d of %d is missing", errNoStart, i+1, len(merged))
		}
	}
	return merged, nil
}

// entries reads a stopped member's log up to an entry.
func (m *Member) entries(upTo api.Index) (out []*raftpb.Entry, err error) {
	w, _, err := wal.Open(vfs.OS(), filepath.Join(m.dataDir(), "member", "wal"), wal.Identity{}, wal.Options{SegmentSize: 1 << 20})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if w.Last() < w.First() {
		return nil, nil
	}
	return w.Entries(w.First(), min(w.Last(), upTo)+1, math.MaxUint64)
}

// readLog is the log in the words of a history, without times.
func readLog(entries []*raftpb.Entry) (log []history.Entry, err error) {
	replay := server.NewReplay()
	for _, e := range entries {
		x, err := raft.ReadEntry(e)
		if err != nil {
			return nil, err
		}
		out := history.Entry{Index: uint64(x.Index), Term: uint64(x.Term)}
		for _, c := range x.Commands {
			logged, refused, err := replay.Read(c)
			if err != nil {
				return nil, fmt.Errorf("entry %d: %w", x.Index, err)
			}
			if refused != nil {
				continue // it had no effect, and may have been proposed again
			}
			h := history.Command{ID: c.ID, Request: logged.Request, Own: logged.Own, Leader: uint64(logged.Term)}
			for _, l := range logged.Expire {
				h.Expired = append(h.Expired, history.Lease{ID: int64(l.ID)})
			}
			for _, l := range logged.Checkpoint {
				h.Checkpointed = append(h.Checkpointed, history.Lease{ID: int64(l.ID), Remaining: l.Remaining})
			}
			out.Commands = append(out.Commands, h)
		}
		log = append(log, out)
	}
	return log, nil
}

// stamp gives commands the latest time at which they can have been applied first.
// Nobody notes when that was, but whoever saw a command's answer or its revision
// saw it afterwards, and all commands before it were applied by then. So a
// command's time is the earliest sight of it or of any later one; if the store is
// sound, that is never before the command was asked for.
//
// What was asked several times in the same words, and answered alike, is one
// answer as good as another: the first of the log gets the first.
func stamp(h *history.History) {
	answered := map[string][]time.Duration{}
	sights := map[int64]time.Duration{} // by revision
	latest := time.Duration(0)
	for _, op := range h.Ops {
		latest = max(latest, op.Return)
		if op.Outcome == history.Unknown {
			continue
		}
		if rev := op.Revision(); rev > 0 {
			if t, seen := sights[rev]; !seen || op.Return < t {
				sights[rev] = op.Return
			}
		}
		if !op.ReadOnly() {
			k := fmt.Sprint(op.Revision(), op.Err, effect(op.Response), oracle.Asked(op.Request))
			answered[k] = append(answered[k], op.Return)
		}
	}
	for _, all := range answered {
		slices.Sort(all)
	}
	m := oracle.NewModel()
	for i, e := range h.Log {
		for j := range e.Commands {
			c := &h.Log[i].Commands[j]
			c.At = latest
			r := m.Apply(e.Term, *c)
			if t, seen := sights[r.Rev]; seen && r.Changed {
				c.At = t
			}
			if c.Request == nil {
				continue
			}
			rev, refusal := r.Rev, ""
			if r.Err != nil {
				rev, refusal = 0, r.Err.Error()
			}
			k := fmt.Sprint(rev, refusal, effect(r.Response), oracle.Asked(c.Request))
			if left := answered[k]; len(left) > 0 {
				c.At, answered[k] = min(c.At, left[0]), left[1:]
			}
		}
	}
	for i := len(h.Log) - 1; i >= 0; i-- {
		cmds := h.Log[i].Commands
		for j := len(cmds) - 1; j >= 0; j-- {
			latest = min(latest, cmds[j].At)
			cmds[j].At = latest
		}
	}
}

// effect tells apart two that asked the same and were answered at one revision: who
// deleted, and who found nothing there any more.
func effect(answer proto.Message) string {
	switch r := answer.(type) {
	case *pb.DeleteRangeResponse:
		return fmt.Sprint(r.Deleted)
	case *pb.TxnResponse:
		return fmt.Sprint(r.Succeeded)
	}
	return ""
}

// sameEnd lifts the states to the end of the log over entries that ask for
// nothing: members are stopped one after the other, and each new leader begins its
// term with such an entry.
func sameEnd(h *history.History) {
	last := slices.MaxFunc(h.States, func(a, b history.State) int { return cmp.Compare(a.Index, b.Index) }).Index
	for i := range h.States {
		st := &h.States[i]
		for st.Index < last && len(h.Log[st.Index].Commands) == 0 {
			st.Index++
		}
	}
}
