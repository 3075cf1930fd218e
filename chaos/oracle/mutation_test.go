package oracle_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/chaos/workload"
)

// good is a history without a fault, with everything that a harness records.
func good() *history.History {
	h := workload.Make(7, 2000, 8)
	h.Healed = h.End / 2
	for _, m := range h.Members {
		for at := time.Duration(0); at < h.End; at += 50 * time.Millisecond {
			h.Probes = append(h.Probes, history.Probe{Member: m.ID, Call: at, Return: at + time.Millisecond, OK: true})
		}
		for at := range time.Duration(9) {
			h.Samples = append(h.Samples, history.Sample{At: at * h.End / 9, Member: m.ID, RSS: 100 << 20, Goroutines: 100, Files: 30})
		}
		h.LogLines = append(h.LogLines, history.LogLine{At: 5, Member: m.ID, Level: "WARN", Text: "slow"})
		h.Exits = append(h.Exits, history.Exit{At: h.End, Member: m.ID, Wanted: true})
	}
	return h
}

func verdicts(h *history.History) (by []string, text string) {
	for _, v := range oracle.Judge(h, func() time.Duration { return 0 }) {
		if len(v.Findings) > 0 {
			by = append(by, v.Oracle)
			text += v.Oracle + ": " + strings.Join(v.Findings, "\n  ") + "\n"
		}
	}
	return by, text
}

func TestGoodHistory(t *testing.T) {
	for seed := range uint64(3) {
		h := workload.Make(seed, 2000, 8)
		if by, text := verdicts(h); len(by) > 0 {
			t.Fatalf("seed %d:\n%s", seed, text)
		}
	}
	if by, text := verdicts(good()); len(by) > 0 {
		t.Fatal(text)
	}
}

// damage is something wrong, and the oracle that must say so.
type damage struct {
	name, by string
	do       func(t *testing.T, h *history.History)
}

// op finds an answered call, from the middle of the history on.
func op(t *testing.T, h *history.History, fits func(*history.Op) bool) *history.Op {
	t.Helper()
	for _, o := range h.Ops[len(h.Ops)/2:] {
		if o.Outcome == history.OK && fits(o) {
			return o
		}
	}
	t.Fatal("the history has no such call")
	return nil
}

func put(o *history.Op) bool { _, ok := o.Request.(*pb.PutRequest); return ok }

func read(o *history.Op) bool {
	r, ok := o.Response.(*pb.RangeResponse)
	return ok && len(r.Kvs) > 0 && !o.Serializable() && o.Request.(*pb.RangeRequest).Revision == 0
}

// appends reports whether the call appended to a list.
func appends(o *history.Op) bool {
	q, ok := o.Request.(*pb.TxnRequest)
	return ok && strings.HasPrefix(string(q.Success[0].GetRequestPut().GetKey()), oracle.ListPrefix) && o.Response.(*pb.TxnResponse).Succeeded
}

func event(h *history.History, watch int) (response *[]*mvccpb.Event, e *mvccpb.Event) {
	w := h.Watches[watch]
	r := &w.Responses[len(w.Responses)/2]
	r.Events = slices.Clone(r.Events)
	return &r.Events, r.Events[0]
}

var damages = []damage{
	{"a read of another value", "O1", func(t *testing.T, h *history.History) {
		r := op(t, h, read).Response.(*pb.RangeResponse)
		r.Kvs[0].Value = []byte("other")
	}},
	{"a read that lacks a key", "O1", func(t *testing.T, h *history.History) {
		r := op(t, h, read).Response.(*pb.RangeResponse)
		r.Kvs = r.Kvs[1:]
	}},
	{"a read from before what had returned", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, func(o *history.Op) bool { return read(o) && o.Revision() > 100 })
		o.Response.(*pb.RangeResponse).Header.Revision -= 90
	}},
	{"a read of what nobody had written yet", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, read)
		o.Response.(*pb.RangeResponse).Header.Revision += 200
	}},
	{"a stale read of another value", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, func(o *history.Op) bool {
			r, ok := o.Response.(*pb.RangeResponse)
			return ok && o.Serializable() && len(r.Kvs) > 0
		})
		o.Response.(*pb.RangeResponse).Kvs[0].ModRevision--
	}},
	{"a count", "O1", func(t *testing.T, h *history.History) {
		op(t, h, read).Response.(*pb.RangeResponse).Count++
	}},
	{"a transaction that took the other branch", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, func(o *history.Op) bool {
			r, ok := o.Response.(*pb.TxnResponse)
			return ok && !r.Succeeded && o.ReadOnly()
		})
		o.Response.(*pb.TxnResponse).Succeeded = true
	}},
	{"a previous value", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, func(o *history.Op) bool { r, ok := o.Response.(*pb.PutResponse); return ok && r.PrevKv != nil })
		o.Response.(*pb.PutResponse).PrevKv.Version++
	}},
	{"a deletion of more", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, func(o *history.Op) bool { r, ok := o.Response.(*pb.DeleteRangeResponse); return ok && r.Deleted > 0 })
		o.Response.(*pb.DeleteRangeResponse).Deleted++
	}},
	{"a write told at another revision", "O1", func(t *testing.T, h *history.History) {
		op(t, h, put).Response.(*pb.PutResponse).Header.Revision += 5
	}},
	{"a write that was called after it was seen", "O1", func(t *testing.T, h *history.History) {
		o := op(t, h, put)
		o.Call, o.Return = o.Call+time.Second, o.Return+time.Second
	}},
	{"collectors that contradict each other", "O1", func(t *testing.T, h *history.History) {
		second := *h.Watches[0]
		second.ID = 77
		second.Responses = slices.Clone(second.Responses)
		h.Watches = append(h.Watches, &second)
		list, e := event(h, len(h.Watches)-1)
		other := proto.Clone(e).(*mvccpb.Event)
		other.Kv.Version++
		(*list)[0] = other
	}},
	{"a list that lost an append", "O2", func(t *testing.T, h *history.History) {
		o := op(t, h, appends)
		lose := string(o.Request.(*pb.TxnRequest).Success[0].GetRequestPut().Value)
		tag := " " + lose[strings.LastIndex(lose, " ")+1:]
		rewriteLists(h, func(value string) string {
			if value == lose {
				return value // its writer's own words
			}
			return strings.ReplaceAll(value+" ", tag+" ", " ")
		})
	}},
	{"a list with an append twice", "O2", func(t *testing.T, h *history.History) {
		o := op(t, h, appends)
		p := o.Request.(*pb.TxnRequest).Success[0].GetRequestPut()
		first := strings.Fields(string(p.Value))[0]
		p.Value = []byte(first + " " + string(p.Value))
	}},
	{"an append that was refused and is there", "O2", func(t *testing.T, h *history.History) {
		o := op(t, h, appends)
		o.Outcome, o.Response = history.Refused, nil
	}},
	{"two transactions that did not see each other", "O2", skewed},
	{"an event that was not delivered", "O3", func(t *testing.T, h *history.History) {
		list, _ := event(h, 1)
		*list = nil
	}},
	{"an event that came twice", "O3", func(t *testing.T, h *history.History) {
		w := h.Watches[1]
		n := len(w.Responses) / 2
		w.Responses = slices.Insert(w.Responses, n, w.Responses[n])
		w.At = slices.Insert(w.At, n, w.At[n])
	}},
	{"an event that came late", "O3", func(t *testing.T, h *history.History) {
		w := h.Watches[1]
		w.At[len(w.At)-1] = h.End + time.Minute
	}},
	{"a watch that stays behind", "O3", func(t *testing.T, h *history.History) {
		w := h.Watches[1]
		w.Responses, w.At = w.Responses[:len(w.Responses)-1], w.At[:len(w.At)-1]
	}},
	{"an acknowledged write that nobody has", "O4", func(t *testing.T, h *history.History) {
		o := op(t, h, put)
		o.Request = &pb.PutRequest{Key: []byte("key/lost"), Value: []byte("lost")}
	}},
	{"a member that lacks a key", "O4", func(t *testing.T, h *history.History) {
		h.States[1].Keys = h.States[1].Keys[1:]
	}},
	{"a member with an old value", "O4", func(t *testing.T, h *history.History) {
		h.States[2].Keys = slices.Clone(h.States[2].Keys)
		h.States[2].Keys[3].Version--
	}},
	{"a member with a lease that ended", "O4", func(t *testing.T, h *history.History) { h.States[0].Leases = map[int64]int64{5: 5} }},
	{"a member with another hash", "O5", func(t *testing.T, h *history.History) { h.States[1].Hash++ }},
	{"a member with other users", "O5", func(t *testing.T, h *history.History) {
		h.States[1].Rows = map[string]string{"auth": "on"}
	}},
	{"a lease that ended early", "O7", func(t *testing.T, h *history.History) { early(t, h) }},
	{"a lease that lived on", "O7", func(t *testing.T, h *history.History) {
		h.Healed, h.Election = time.Millisecond, 0
		for _, o := range h.Ops { // it was to live for a tenth of that
			if r, ok := o.Request.(*pb.LeaseGrantRequest); ok && r.TTL == 10 && o.Outcome == history.OK {
				r.TTL, o.Response.(*pb.LeaseGrantResponse).TTL = 1, 1
			}
		}
	}},
	{"a token that went back", "O7", func(t *testing.T, h *history.History) { fenceBack(t, h) }},
	{"a write that nobody asked for", "O8", func(t *testing.T, h *history.History) {
		o := op(t, h, put)
		h.Ops = slices.DeleteFunc(h.Ops, func(x *history.Op) bool { return x == o })
	}},
	{"a write that was refused and is there", "O8", func(t *testing.T, h *history.History) {
		o := op(t, h, put)
		o.Outcome, o.Response = history.Refused, nil
	}},
	{"a counter that lost a raise", "O8", func(t *testing.T, h *history.History) {
		for i, kv := range h.States[0].Keys {
			if strings.HasPrefix(kv.Key, oracle.CounterPrefix) {
				h.States[0].Keys[i].Value = "1 lost"
			}
		}
	}},
	{"a gap without a fault", "O9", func(t *testing.T, h *history.History) {
		h.Probes = append(h.Probes, history.Probe{Member: 1, Call: h.End + time.Minute, Return: h.End + time.Minute, OK: true})
	}},
	{"a member that stays away", "O9", func(t *testing.T, h *history.History) {
		h.Probes = slices.DeleteFunc(h.Probes, func(p history.Probe) bool { return p.Member == 2 && p.Call > h.Healed })
		h.End += time.Hour
	}},
	{"memory that grows", "O10", func(t *testing.T, h *history.History) { grow(h, func(s *history.Sample) { s.RSS *= 3 }) }},
	{"goroutines that stay", "O10", func(t *testing.T, h *history.History) { grow(h, func(s *history.Sample) { s.Goroutines += 500 }) }},
	{"files that stay open", "O10", func(t *testing.T, h *history.History) { grow(h, func(s *history.Sample) { s.Files += 500 }) }},
	{"an error without a fault", "O11", func(t *testing.T, h *history.History) {
		h.LogLines = append(h.LogLines, history.LogLine{At: time.Second, Member: 1, Level: "ERROR", Text: "what"})
	}},
	{"damage that nobody told of", "O11", func(t *testing.T, h *history.History) {
		h.Faults = append(h.Faults, &history.Fault{ID: 1, Kind: "flip-bit", Member: 1, Begin: time.Second, End: 2 * time.Second})
	}},
	{"a member that ended by itself", "O12", func(t *testing.T, h *history.History) { h.Exits[0].Wanted = false }},
	{"a panic", "O12", func(t *testing.T, h *history.History) {
		h.Faults = append(h.Faults, &history.Fault{ID: 1, Kind: "disk-full", Begin: 0})
		h.Exits[0].Wanted, h.Exits[0].Text = false, "panic: no\n\ngoroutine 1 [running]:"
	}},
}

func TestDamageIsSeen(t *testing.T) {
	for _, d := range damages {
		h := good()
		d.do(t, h)
		c := oracle.NewCase(h)
		if !slices.ContainsFunc(oracle.All(), func(o oracle.Oracle) bool { return o.Name == d.by && len(o.Check(c)) > 0 }) {
			by, text := verdicts(h)
			t.Errorf("%s: %s does not see it; %v do\n%s", d.name, d.by, by, text)
		}
	}
}

// grow changes what members use in the last third.
func grow(h *history.History, change func(*history.Sample)) {
	for i := range h.Samples {
		if h.Samples[i].At > h.End/2 {
			change(&h.Samples[i])
		}
	}
}

// rewriteLists changes all values of lists, in what is asked, answered and told.
func rewriteLists(h *history.History, change func(string) string) {
	kv := func(kv *mvccpb.KeyValue) {
		if strings.HasPrefix(string(kv.Key), oracle.ListPrefix) {
			kv.Value = []byte(strings.Join(strings.Fields(change(string(kv.Value))), " "))
		}
	}
	for _, o := range h.Ops {
		q, ok := o.Request.(*pb.TxnRequest)
		if !ok {
			continue
		}
		for _, x := range q.Success {
			if p := x.GetRequestPut(); p != nil && strings.HasPrefix(string(p.Key), oracle.ListPrefix) {
				p.Value = []byte(strings.Join(strings.Fields(change(string(p.Value))), " "))
			}
		}
		if r, ok := o.Response.(*pb.TxnResponse); ok {
			for _, x := range r.Responses {
				for _, k := range x.GetResponseRange().GetKvs() {
					kv(k)
				}
			}
		}
	}
	for _, w := range h.Watches {
		for _, r := range w.Responses {
			for _, e := range r.Events {
				kv(e.Kv)
			}
		}
	}
	for i := range h.States {
		for j, k := range h.States[i].Keys {
			if strings.HasPrefix(k.Key, oracle.ListPrefix) {
				h.States[i].Keys[j].Value = strings.Join(strings.Fields(change(k.Value)), " ")
			}
		}
	}
}

// skewed adds two transactions at the same time: each appends to one list and
// reads the other as it was before.
func skewed(t *testing.T, h *history.History) {
	a, b := oracle.ListPrefix+"9/a", oracle.ListPrefix+"9/b"
	add := func(id int, write, read, tag string, rev int64) {
		o := &history.Op{ID: id, Client: 90 + id, Method: "etcdserverpb.KV/Txn", Call: h.End, Return: h.End + time.Millisecond, Outcome: history.OK,
			Request: &pb.TxnRequest{Success: []*pb.RequestOp{
				{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(write), Value: []byte(tag)}}},
				{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(read)}}},
			}},
			Response: &pb.TxnResponse{Succeeded: true, Header: &pb.ResponseHeader{Revision: rev}, Responses: []*pb.ResponseOp{
				{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}},
				{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{}}},
			}}}
		h.Ops = append(h.Ops, o)
	}
	last := h.States[0].Revision
	add(1, a, b, "90:1", last+1)
	add(2, b, a, "91:1", last+2)
}

// early says that a lease had been renewed shortly before it ended.
func early(t *testing.T, h *history.History) {
	t.Helper()
	w := h.Watches[0]
	leased := map[string]int64{}
	for i, r := range w.Responses {
		for _, e := range r.Events {
			id := leased[string(e.Kv.Key)]
			if e.Type == mvccpb.Event_PUT {
				leased[string(e.Kv.Key)] = e.Kv.Lease
				continue
			}
			if id != 0 && strings.HasPrefix(string(e.Kv.Key), "/registry/events/") {
				h.Ops = append(h.Ops, &history.Op{ID: 1, Client: 90, Call: w.At[i] - time.Second, Return: w.At[i] - time.Millisecond, Outcome: history.OK,
					Method: "etcdserverpb.Lease/LeaseKeepAlive", Request: &pb.LeaseKeepAliveRequest{ID: id},
					Response: &pb.LeaseKeepAliveResponse{ID: id, TTL: 10, Header: &pb.ResponseHeader{Revision: r.Revision - 1}}})
				return
			}
		}
	}
	t.Fatal("no lease has ended")
}

// fenceBack says that a write under a lock carried an old token.
func fenceBack(t *testing.T, h *history.History) {
	t.Helper()
	for _, r := range slices.Backward(h.Watches[0].Responses) {
		for _, e := range r.Events {
			if strings.HasPrefix(string(e.Kv.Key), oracle.FencePrefix) {
				old := e.Kv.Value
				e.Kv.Value = append([]byte("1"), old[strings.Index(string(old), " "):]...)
				for _, o := range h.Ops {
					if q, ok := o.Request.(*pb.TxnRequest); ok && len(q.Success) > 0 && string(q.Success[0].GetRequestPut().GetValue()) == string(old) {
						q.Success[0].GetRequestPut().Value = e.Kv.Value
					}
				}
				return
			}
		}
	}
	t.Fatal("nothing was written under a lock")
}

// TestSearched: the checker that searches accepts what the others accept, and sees
// by itself what they see on keys that it follows.
func TestSearched(t *testing.T) {
	h := workload.Make(9, 4000, 8)
	if errs := oracle.Searched(oracle.NewCase(h)); len(errs) > 0 {
		t.Fatal(errs)
	}
	damaged := 0
	for _, o := range h.Ops {
		r, ok := o.Response.(*pb.TxnResponse)
		if !ok || o.Outcome != history.OK {
			continue
		}
		for _, x := range r.Responses {
			kvs := x.GetResponseRange().GetKvs()
			if len(kvs) > 0 && strings.HasPrefix(string(kvs[0].Key), oracle.ListPrefix) {
				kvs[0].Value = append(kvs[0].Value, " 99:99"...)
				damaged++
			}
		}
	}
	c := oracle.NewCase(h)
	for name, check := range map[string]func(*oracle.Case) []error{"Searched": oracle.Searched, "Linearizable": oracle.Linearizable, "Lists": oracle.Lists} {
		if len(check(c)) == 0 {
			t.Errorf("%s does not see %d wrong reads of lists", name, damaged)
		}
	}
}
