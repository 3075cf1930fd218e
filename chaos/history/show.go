package history

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Line is one thing that happened, in words.
type Line struct {
	At   time.Duration
	Text string
}

// Lines is what happened in [from, to], in order of time; a call stands where it
// was sent.
func (h *History) Lines(from, to time.Duration) (out []Line) {
	add := func(at time.Duration, format string, args ...any) {
		if from <= at && at <= to {
			out = append(out, Line{at, fmt.Sprintf(format, args...)})
		}
	}
	for _, op := range h.Ops {
		if from <= op.Call && op.Call <= to { // words of a million calls take a while
			add(op.Call, "call %d  client %d %s  %s", op.ID, op.Client, h.Name(op.Member), op.words())
		}
	}
	for _, w := range h.Watches {
		h.watchLines(w, add)
	}
	for _, f := range h.Faults {
		add(f.Begin, "FAULT %d begins: %s", f.ID, f.Text)
		if f.End > 0 {
			add(f.End, "FAULT %d ends: %s", f.ID, f.Text)
		}
	}
	if h.Healed > 0 {
		add(h.Healed, "HEALED: faults have ended")
	}
	for _, l := range h.Leaders {
		add(l.At, "leader %s says %s leads term %d", h.Name(l.Member), h.Name(l.Leader), l.Term)
	}
	for _, p := range h.Probes {
		add(p.Call, "probe %s ok=%v after %v", h.Name(p.Member), p.OK, p.Return-p.Call)
	}
	for _, s := range h.Samples {
		add(s.At, "sample %s rss=%d goroutines=%d files=%d disk=%d", h.Name(s.Member), s.RSS, s.Goroutines, s.Files, s.Disk)
	}
	for _, l := range h.LogLines {
		add(l.At, "log %s %s %s", h.Name(l.Member), l.Level, l.Text)
	}
	for _, e := range h.Exits {
		add(e.At, "exit %s code=%d signal=%s wanted=%v %s", h.Name(e.Member), e.Code, e.Signal, e.Wanted, e.Text)
	}
	slices.SortStableFunc(out, func(a, b Line) int { return cmp.Compare(a.At, b.At) })
	return out
}

func (h *History) watchLines(w *Watch, add func(time.Duration, string, ...any)) {
	add(w.Opened, "watch %d  client %d %s  opens %q-%q from %d", w.ID, w.Client, h.Name(w.Member), w.Request.Key, w.Request.End, w.Request.Start)
	for i, r := range w.Responses {
		if i < len(w.At) {
			add(w.At[i], "watch %d  %s", w.ID, answerWords(r))
		}
	}
	if w.Ended > 0 {
		add(w.Ended, "watch %d  ends %s", w.ID, w.Err)
	}
}

func answerWords(r watchcheck.Response) string {
	var b strings.Builder
	fmt.Fprintf(&b, "revision %d", r.Revision)
	for _, x := range []struct {
		is   bool
		what string
	}{{r.Created, " created"}, {r.Canceled, " canceled"}, {r.Fragment, " fragment"}, {r.Progress, " bookmark"}} {
		if x.is {
			b.WriteString(x.what)
		}
	}
	if r.Compact > 0 {
		fmt.Fprintf(&b, " compacted at %d", r.Compact)
	}
	for _, e := range r.Events {
		fmt.Fprintf(&b, "  %v %q=%q@%d", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
	}
	return b.String()
}

func (o *Op) words() string {
	method := o.Method[strings.LastIndex(o.Method, "/")+1:]
	took := (o.Return - o.Call).Round(time.Microsecond)
	said := string(o.Outcome)
	if o.Err != "" {
		said += " " + o.Err
	}
	if o.Response != nil {
		said += " " + message(o.Response)
	}
	return fmt.Sprintf("%s %s → %v: %s", method, message(o.Request), took, said)
}

func message(m proto.Message) string { return prototext.MarshalOptions{}.Format(m) }

// Show prints a history: what it is, what its judges said, and, unless brief,
// what happened in [from, to].
func (h *History) Show(w io.Writer, from, to time.Duration, brief bool) error {
	outcomes := map[Outcome]int{}
	for _, op := range h.Ops {
		outcomes[op.Outcome]++
	}
	deliveries, events := 0, 0
	for _, x := range h.Watches {
		deliveries += len(x.Responses)
		for _, r := range x.Responses {
			events += len(r.Events)
		}
	}
	fmt.Fprintf(w, "ring %s, seed %#x, commit %s, began %s, %v long\n", h.Ring, h.Seed, h.Commit, h.Began.Format(time.RFC3339), h.End.Round(time.Millisecond))
	for _, m := range h.Members {
		fmt.Fprintf(w, "member %x is %s at %s\n", m.ID, m.Name, m.Endpoint)
	}
	fmt.Fprintf(w, "%d calls (%d ok, %d refused, %d unknown), %d log entries, %d watches with %d deliveries of %d events, %d faults, %d probes, %d exits\n",
		len(h.Ops), outcomes[OK], outcomes[Refused], outcomes[Unknown], len(h.Log), len(h.Watches), deliveries, events, len(h.Faults), len(h.Probes), len(h.Exits))
	for _, v := range h.Verdicts {
		fmt.Fprintf(w, "%s: %d findings in %v\n", v.Oracle, len(v.Findings), v.Took.Round(time.Millisecond))
		for _, f := range v.Findings {
			fmt.Fprintln(w, "  "+f)
		}
	}
	if h.Replay != "" {
		fmt.Fprintln(w, "replay:", h.Replay)
	}
	if brief {
		return nil
	}
	for _, l := range h.Lines(from, to) {
		if _, err := fmt.Fprintf(w, "%12v  %s\n", l.At.Round(time.Microsecond), l.Text); err != nil {
			return err
		}
	}
	return nil
}
