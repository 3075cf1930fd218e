//go:build linux

package real

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// prober writes through one member after the other, from outside and without a
// library that helps, so that availability shows.
type prober struct {
	c    *Cluster
	rec  *history.Recorder
	sent int
}

// probeEvery is the finest that a gap can be told, and maxProbes how many probes
// wait for an answer at once.
const (
	probeEvery   = 20 * time.Millisecond
	probeTimeout = 3 * time.Second
	maxProbes    = 200
)

func (p *prober) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxProbes)
	for tick := time.NewTicker(probeEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		all := p.c.members()
		m := all[p.sent%len(all)]
		p.sent++
		conn, err := p.c.dial(m.endpoint())
		if err != nil {
			continue
		}
		req := &pb.PutRequest{Key: fmt.Appendf(nil, "probe/%s", m.Name), Value: fmt.Appendf(nil, "p:%d", p.sent)}
		select {
		case room <- struct{}{}:
			wg.Go(func() { p.ask(ctx, m, conn, req); <-room })
		default:
		}
	}
}

// ask makes one probe: a call like any other, and a point of the availability line.
func (p *prober) ask(ctx context.Context, m *Member, conn *grpc.ClientConn, req *pb.PutRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	call := p.rec.Call(300, m.ID, m.Name, "etcdserverpb.KV/Put", req)
	resp, err := pb.NewKVClient(conn).Put(ctx, req)
	op := call.Return(resp, history.OutcomeOf(err), wordsOf(err))
	p.rec.Probe(history.Probe{Member: m.ID, Call: op.Call, Return: op.Return, OK: err == nil})
}

// count sums a history up.
func (r *Run) count(h *history.History) {
	res := &r.result
	for _, op := range h.Ops {
		switch op.Outcome {
		case history.OK:
			res.Acked++
		case history.Unknown:
			res.Unknown++
		}
	}
	for _, w := range h.Watches {
		for _, a := range w.Responses {
			res.Events += len(a.Events)
		}
	}
	for _, f := range h.Faults {
		if gap, ok := firstAck(h, cmp.Or(r.strikes[f.ID], f.Begin)); ok {
			res.Gaps = append(res.Gaps, Measure{f.Kind, gap})
		}
	}
}

// firstAck is O9: the time from a fault's strike to the first acknowledgement of a write
// that was asked for after it.
func firstAck(h *history.History, since time.Duration) (gap time.Duration, ok bool) {
	for _, op := range h.Ops {
		if op.Outcome == history.OK && !op.ReadOnly() && op.Call >= since && (!ok || op.Return-since < gap) {
			gap, ok = op.Return-since, true
		}
	}
	return gap, ok
}

// cries are what a healthy process never prints, whatever happens to it.
var cries = []string{"panic:", "fatal error:", "DATA RACE", "goroutine "}

// audit is O12 and O11: how processes ended, and what they printed. Warnings go into
// the history, for the oracles.
func (r *Run) audit(h *history.History) error {
	var errs []error
	for _, m := range r.everybody() {
		for _, e := range m.exits() {
			if e.Why == "" && (e.Code != 0 || e.Signal != "") {
				errs = append(errs, fmt.Errorf("O12: %s ended at %v with code %d %s and no fault explains it: %s", e.Member, e.At, e.Code, e.Signal, e.Last))
			}
		}
		for _, l := range m.lines() {
			if l.Level == "warn" { // what says that damage was found; errors are judged here
				h.LogLines = append(h.LogLines, history.LogLine{At: l.At, Member: m.ID, Level: l.Level, Text: l.Raw})
			}
			if cry := slices.IndexFunc(cries, func(c string) bool { return strings.HasPrefix(l.Raw, c) }); cry >= 0 {
				errs = append(errs, fmt.Errorf("O12: %s printed at %v: %s", m.Name, l.At, l.Raw))
				break
			}
			if l.Level == "error" && l.Why == "" && !r.expected(l) {
				errs = append(errs, fmt.Errorf("O11: %s logged at %v: %s", m.Name, l.At, l.Raw))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// expected reports that a fault of the run explains a line.
func (r *Run) expected(l logLine) bool {
	for _, f := range r.Faults {
		for _, text := range f.Logs {
			if strings.Contains(l.Raw, text) {
				return true
			}
		}
	}
	return false
}

// acknowledged is what can be said of durability without the log: each
// acknowledged put is, or was overwritten, in every member.
func acknowledged(h *history.History) error {
	for _, st := range h.States {
		at := map[string]history.KV{}
		for _, kv := range st.Keys {
			at[kv.Key] = kv
		}
		for _, op := range h.Ops {
			put, ok := op.Request.(*pb.PutRequest)
			if !ok || op.Outcome != history.OK {
				continue
			}
			kv, live := at[string(put.Key)]
			switch {
			case live && kv.Mod < op.Revision(), live && kv.Mod == op.Revision() && written(op.Method, kv.Value) != string(put.Value):
				return fmt.Errorf("O4: op %d was acknowledged at revision %d; member %x has %+v", op.ID, op.Revision(), st.Member, kv)
			case op.Revision() > st.Revision:
				return fmt.Errorf("O4: op %d was acknowledged at revision %d; member %x is at %d", op.ID, op.Revision(), st.Member, st.Revision)
			}
		}
		if st.Hash != h.States[0].Hash || st.Revision != h.States[0].Revision {
			return fmt.Errorf("O5: member %x has hash %08x at revision %d, member %x %08x at %d", st.Member, st.Hash, st.Revision,
				h.States[0].Member, h.States[0].Hash, h.States[0].Revision)
		}
	}
	return nil
}

// keep copies what a failing run has left.
func (r *Run) keep() {
	to := filepath.Join(r.Keep, fmt.Sprintf("%s-%x", r.result.Fault, r.Seed))
	err := os.MkdirAll(to, 0o755)
	for _, m := range r.everybody() {
		var text strings.Builder
		for _, l := range m.lines() {
			fmt.Fprintf(&text, "%9.3fs %s\n", l.At.Seconds(), l.Raw)
		}
		err = errors.Join(err, os.WriteFile(filepath.Join(to, m.Name+".log"), []byte(text.String()), 0o644))
		if _, e := os.Stat(m.dataDir()); e == nil {
			err = errors.Join(err, exec.Command("cp", "-a", m.dataDir(), filepath.Join(to, m.Name)).Run())
		}
	}
	err = errors.Join(err, exec.Command("cp", filepath.Join(r.dir, "history"), to).Run())
	fmt.Fprintf(os.Stderr, "chaos: what was left is in %s %v\n", to, err)
}
