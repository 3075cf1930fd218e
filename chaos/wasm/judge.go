package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/chaos/sim"
)

// What the world has seen, in the words of a history once that has begun.
type (
	happened struct {
		event fault.Event
		begin time.Duration
	}
	exit struct {
		at   time.Duration
		node *node
		code int
		text string
	}
	line struct {
		at   time.Duration
		node *node
		text string
	}
)

// Result is a finished run.
type Result struct {
	Config  Config
	Trace   uint64 // equal for equal runs
	Time    time.Duration
	Stats   sim.Stats
	History *history.History
	Failure error
}

// recorded is what the clients write down.
func (w *world) recorded(p []byte) {
	w.record = append(w.record, p...)
	w.trace.Write(p)
}

// judge makes the history of the run and asks the oracles.
func (w *world) judge(ended error) *Result {
	r := &Result{Config: w.cfg, Trace: w.trace.Sum64(), Time: w.now, Stats: w.stats, Failure: ended}
	h, err := history.Read(bytes.NewReader(w.record))
	if err != nil && ended == nil {
		r.Failure = fmt.Errorf("the history: %w", err)
	}
	if h == nil {
		return r
	}
	r.History = h
	w.complete(h)
	r.count()
	if r.Failure != nil {
		return r
	}
	var errs []error
	for _, v := range oracle.Judge(h, func() time.Duration { return 0 }) {
		for _, f := range v.Findings {
			errs = append(errs, fmt.Errorf("%s %s", v.Oracle, f))
		}
	}
	r.Stats.Writes = len(oracle.NewCase(h).Written())
	r.Failure = errors.Join(errs...)
	return r
}

// complete adds what the clients could not know.
func (w *world) complete(h *history.History) {
	id := func(n *node) uint64 {
		if n.number > len(h.Members) {
			return 0
		}
		return h.Members[n.number-1].ID
	}
	for i, f := range w.faults {
		e := f.event
		h.Faults = append(h.Faults, &history.Fault{
			ID: i + 1, Kind: string(e.Kind), Member: id(w.nodes[e.Member-1]), Text: e.String(), Begin: f.begin, End: f.begin + e.For,
		})
	}
	for _, e := range w.exits {
		h.Exits = append(h.Exits, history.Exit{At: e.at - w.began, Member: id(e.node), Code: e.code, Text: e.text})
	}
	for _, l := range w.lines {
		h.LogLines = append(h.LogLines, history.LogLine{At: l.at - w.began, Member: id(l.node), Level: "ERROR", Text: l.text})
	}
	h.Healed = w.healed
}

// count fills the figures.
func (r *Result) count() {
	s := &r.Stats
	for _, op := range r.History.Ops {
		s.Ops++
		switch op.Outcome {
		case history.OK:
			s.Acked++
		case history.Refused:
			s.Refused++
		default:
			s.Unknown++
		}
	}
	for _, w := range r.History.Watches {
		s.Watches++
		for _, a := range w.Responses {
			s.WatchEvents += len(a.Events)
		}
	}
	terms := map[uint64]bool{}
	for _, l := range r.History.Leaders {
		if l.Leader != 0 {
			terms[l.Term] = true
		}
	}
	s.Elections = len(terms)
}

// Line tells how the run ended; of a failure it says how to repeat it.
func (r *Result) Line(commit string) string {
	c := r.Config
	if r.Failure == nil {
		return fmt.Sprintf("seed %#x: %v simulated, %d calls, %d unknown, %d events, %d faults, trace %016x",
			c.Seed, r.Time.Round(time.Millisecond), r.Stats.Ops, r.Stats.Unknown, r.Stats.WatchEvents, len(r.History.Faults), r.Trace)
	}
	text, rest, _ := strings.Cut(r.Failure.Error(), "\n")
	if rest != "" {
		text += fmt.Sprintf(" (and %d lines more)", strings.Count(rest, "\n")+1)
	}
	more := ""
	if c.Planted != "" {
		more = " -planted " + c.Planted
	}
	return fmt.Sprintf("FAIL ring=B seed=%#x commit=%s %s | replay: go -C chaos/wasm run . -seed %#x%s -v", c.Seed, commit, text, c.Seed, more)
}
