package sim

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
	many bool // needs other members
}

// choices are the faults of ring A.
var choices = []choice{
	{kind: fault.Kill, most: 4 * time.Second},
	{kind: fault.PowerCut, most: 4 * time.Second},
	{kind: fault.PowerAll, most: 3 * time.Second},
	{kind: fault.CrashAtIO, most: 2 * time.Second, args: []int{1, 2, 3, 4, 5, 7, 10, 20, 50}},
	{kind: fault.Pause, most: 5 * time.Second},
	{kind: fault.PauseAll, most: 3 * time.Second},
	{kind: fault.Isolate, most: 5 * time.Second, many: true},
	{kind: fault.CutTo, most: 5 * time.Second, many: true},
	{kind: fault.CutFrom, most: 5 * time.Second, many: true},
	{kind: fault.Bridge, most: 5 * time.Second, many: true},
	{kind: fault.Split, most: 5 * time.Second, many: true},
	{kind: fault.Loss, most: 5 * time.Second, args: []int{1, 10, 30}, many: true},
	{kind: fault.Duplicate, most: 5 * time.Second, args: []int{1, 20}, many: true},
	{kind: fault.Delay, most: 5 * time.Second, args: []int{20, 75, 500}, many: true},
	{kind: fault.SlowSome, most: 5 * time.Second, args: []int{5, 20, 100}, many: true},
	{kind: fault.Thin, most: 5 * time.Second, args: []int{125, 30}, many: true},
	{kind: fault.DiskStall, most: 5 * time.Second},
	{kind: fault.FlushFails, most: time.Second, args: []int{0, 1}},
	{kind: fault.SyncFails},
	{kind: fault.WriteFails, args: []int{0, 1, 2}},
	{kind: fault.DiskFull, most: 3 * time.Second},
	{kind: fault.FlipBit, most: 3 * time.Second, many: true},
	{kind: fault.ZeroSector, most: 3 * time.Second, many: true},
	{kind: fault.Rot, most: 2 * time.Second, many: true},
	{kind: fault.Delete, most: 2 * time.Second, many: true},
	{kind: fault.ClientCut, most: 5 * time.Second},
	{kind: fault.HandOver, many: true},
	{kind: fault.Zombie, most: 4 * time.Second, many: true},
	{kind: fault.WallJump, most: 5 * time.Second, args: []int{-60, 60, -43200, 43200}},
	{kind: fault.SlowWatch, most: 3 * time.Second},
	{kind: fault.Compact, args: []int{0, 1, 5, 50}},
	{kind: fault.Alarm, most: time.Second},
	{kind: fault.FalseDown, most: time.Second, many: true},
	{kind: fault.AddLearner, most: 4 * time.Second},
	{kind: fault.AddVoter, most: 4 * time.Second},
	{kind: fault.Remove, most: 4 * time.Second, args: []int{0, 1}},
	{kind: fault.Return, most: 4 * time.Second},
	{kind: fault.DiskLost, most: 4 * time.Second, args: []int{0, 1}, many: true},
}

// Plan draws the faults of a configuration. Each seed uses some kinds only, and
// those more often: rare combinations come up that way.
func Plan(c Config) (plan []fault.Event) {
	if c.FaultEvery == 0 {
		return nil
	}
	r := rand.New(rand.NewPCG(c.Seed, 2))
	usable := slices.DeleteFunc(slices.Clone(choices), func(x choice) bool { return x.many && c.Members == 1 || r.IntN(3) == 0 })
	if len(c.Kinds) > 0 {
		usable = slices.DeleteFunc(slices.Clone(choices), func(x choice) bool {
			return x.many && c.Members == 1 || !slices.Contains(c.Kinds, x.kind)
		})
	} else if r.IntN(3) == 0 { // few kinds, which then meet each other
		r.Shuffle(len(usable), func(i, j int) { usable[i], usable[j] = usable[j], usable[i] })
		usable = usable[:min(len(usable), 3)]
	}
	if len(usable) == 0 {
		return nil
	}
	for at := time.Second; at < c.Safety; {
		x := usable[r.IntN(len(usable))]
		e := fault.Event{At: at, Kind: x.kind, Member: r.IntN(c.Members + 2)} // members may be added
		if r.IntN(3) == 0 || len(c.Kinds) > 0 && r.IntN(3) > 0 {
			e.Member = fault.Leader
		}
		if x.most > 0 {
			e.For = x.most/20 + time.Duration(r.Int64N(int64(x.most)))
		}
		if len(x.args) > 0 {
			e.Arg = x.args[r.IntN(len(x.args))]
		}
		plan = append(plan, e)
		at += time.Duration(r.ExpFloat64() * float64(c.FaultEvery))
	}
	return plan
}
