package main

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
)

// choice is one kind of fault with what a plan draws for it.
type choice struct {
	kind fault.Kind
	most time.Duration // it lasts
	args []int
}

// choices are the faults of ring B.
var choices = []choice{
	{kind: fault.Kill, most: 4 * time.Second},
	{kind: fault.PowerCut, most: 4 * time.Second},
	{kind: fault.PowerAll, most: 3 * time.Second},
	{kind: fault.CrashAtIO, most: 2 * time.Second, args: []int{1, 2, 3, 5, 10, 20, 50, 200, 1000}},
	{kind: fault.Pause, most: 5 * time.Second},
	{kind: fault.PauseAll, most: 3 * time.Second},
	{kind: fault.Isolate, most: 6 * time.Second},
	{kind: fault.CutTo, most: 6 * time.Second},
	{kind: fault.CutFrom, most: 6 * time.Second},
	{kind: fault.Bridge, most: 5 * time.Second},
	{kind: fault.Loss, most: 5 * time.Second, args: []int{1, 10, 30}},
	{kind: fault.Delay, most: 5 * time.Second, args: []int{20, 75, 300}},
	{kind: fault.DiskStall, most: 4 * time.Second},
	{kind: fault.DiskFull, most: 3 * time.Second},
	{kind: fault.ClientCut, most: 6 * time.Second},
	{kind: fault.WallJump, most: 5 * time.Second, args: []int{-60, 60, -43200, 43200}},
}

// Plan draws the faults of a configuration. Each seed uses some kinds only, and
// those more often: rare combinations come up that way.
func Plan(c Config) (plan []fault.Event) {
	r := rand.New(rand.NewPCG(c.Seed, 2))
	kinds := slices.Clone(choices)
	r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	kinds = kinds[:2+r.IntN(len(kinds)-1)]
	for at := time.Second; ; {
		at += time.Duration(r.ExpFloat64() * float64(c.FaultEvery))
		if at >= c.Safety {
			return plan
		}
		k := kinds[r.IntN(len(kinds))]
		e := fault.Event{At: at, Kind: k.kind, Member: 1 + r.IntN(c.Members), For: time.Duration(r.Int64N(int64(k.most))) + time.Millisecond}
		e.For = min(e.For, c.Safety-at)
		if len(k.args) > 0 {
			e.Arg = k.args[r.IntN(len(k.args))]
		}
		plan = append(plan, e)
	}
}

// torment begins when the clients do: faults, then calm, and in the middle of the
// calm the last power cut, of all members.
func (w *world) torment() {
	for _, e := range Plan(w.cfg) {
		w.after(e.At, func() { w.strike(e) })
	}
	w.after(w.cfg.Safety+w.cfg.Calm/2, func() {
		w.strike(fault.Event{At: w.cfg.Safety + w.cfg.Calm/2, Kind: fault.PowerAll, Member: 1, For: 500 * time.Millisecond})
	})
	w.after(w.cfg.Safety+w.cfg.Calm/2+time.Second, func() { w.healed = w.now - w.began })
}

// strike makes one fault happen, and end.
func (w *world) strike(e fault.Event) {
	n := w.nodes[e.Member-1]
	w.say("* %v", e)
	w.faults = append(w.faults, happened{event: e, begin: w.now - w.began})
	w.stats.Faults[e.Kind]++
	var undo func()
	switch e.Kind {
	case fault.Kill:
		undo = w.down(false, n)
	case fault.PowerCut:
		undo = w.down(true, n)
	case fault.PowerAll:
		undo = w.down(true, w.members()...)
	case fault.CrashAtIO:
		undo = w.dieLater(n, e)
	case fault.Pause:
		undo = pause(n)
	case fault.PauseAll:
		undo = pause(w.members()...)
	case fault.DiskStall:
		n.stalled = max(n.stalled, w.now+e.For)
	case fault.DiskFull:
		n.full++
		n.disk.SetSpace(0)
		undo = func() {
			if n.full--; n.full == 0 {
				n.disk.SetSpace(-1)
			}
		}
	case fault.WallJump:
		n.wall = time.Duration(e.Arg) * time.Minute
		undo = func() { n.wall = 0 }
	default:
		undo = w.net.strike(e, n)
	}
	w.after(e.For, func() {
		if undo != nil {
			undo()
		}
	})
}

func (w *world) members() []*node { return w.nodes[:w.cfg.Members] }

// down ends processes, and starts them again.
func (w *world) down(power bool, all ...*node) (undo func()) {
	for _, n := range all {
		w.crash(n, power)
	}
	return func() {
		for _, n := range all {
			w.recover(n)
		}
	}
}

// dieLater has the member die at one of its next calls of the host, and start again
// when the fault's time is over: if it lives until then, it goes on living.
func (w *world) dieLater(n *node, e fault.Event) (undo func()) {
	m := n.machine
	m.dieAt = m.calls + e.Arg
	m.death = func() { w.lose(n, w.rand.IntN(2) == 0) }
	return func() {
		m.dieAt = 0
		w.recover(n)
	}
}

func pause(all ...*node) (undo func()) {
	machines := make([]*machine, len(all))
	for i, n := range all {
		machines[i] = n.machine
		machines[i].pauses++
	}
	return func() {
		for _, m := range machines {
			m.resume()
		}
	}
}

// strike makes what a network can do. A bridge is the only way between the others.
func (n *network) strike(e fault.Event, to *node) (undo func()) {
	switch e.Kind {
	case fault.Loss:
		n.lossy += float64(e.Arg) / 100
		return func() { n.lossy -= float64(e.Arg) / 100 }
	case fault.Delay:
		n.delay += time.Duration(e.Arg) * time.Millisecond
		return func() { n.delay -= time.Duration(e.Arg) * time.Millisecond }
	}
	var links [][2]int
	for _, a := range n.nodes {
		for _, b := range n.nodes {
			from, into := a == to, b == to
			clients := a.clients || b.clients
			if a != b && map[fault.Kind]bool{
				fault.Isolate:   (from || into) && !clients,
				fault.CutTo:     from && !clients,
				fault.CutFrom:   into && !clients,
				fault.Bridge:    !from && !into && !clients,
				fault.ClientCut: (from || into) && clients,
			}[e.Kind] {
				links = append(links, [2]int{a.number, b.number})
			}
		}
	}
	for _, l := range links {
		n.cut[l]++
	}
	return func() {
		for _, l := range links {
			n.cut[l]--
		}
	}
}
