package sim

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/workload"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Way is how a call of the disk fails.
type Way string

// The ways. A call that fails may have taken effect.
const (
	Refused Way = "refused"
	Done    Way = "fails, but takes effect"
	Half    Way = "stops half-way"     // a read or a write
	Forgot  Way = "forgets its pages"  // a sync
	NoPower Way = "the power fails"    // before it; what was not synced may be lost
	Commit  Way = "commit is refused"  // the calls are the store's commits
	Told    Way = "commit fails, done" // likewise; it takes effect
)

// Ways are all, in the order in which they are told.
var Ways = []Way{Refused, Done, Half, Forgot, NoPower, Commit, Told}

// FailedCall names the call of the first member's disk that fails, counted over
// all its processes from 1, of the kinds that Way is about; and a second one.
type FailedCall struct {
	Nth int
	Way Way
	// Again is a call of the process that starts after the first one has failed,
	// from 1; 0: none.
	Again    int
	AgainWay Way
}

// String prints the call on one line.
func (c FailedCall) String() string {
	s := fmt.Sprintf("call %d: %s", c.Nth, c.Way)
	if c.Again > 0 {
		s += fmt.Sprintf("; then call %d of the next start: %s", c.Again, c.AgainWay)
	}
	return s
}

// CallResult is what became of it.
type CallResult struct {
	Result
	Met, Stopped bool   // the call was made; the process ended by it
	Point        string // what the call was
	Recovering   bool   // the second call was made, and before its process had its node
}

// breaking is the fault of a run of FailCall.
type breaking struct {
	what    FailedCall
	calls   int // that fit, of the processes before this one
	commits int
	files   *vfs.Fault // of the process
	life    int        // in which the call failed
	result  CallResult
}

// rule is what a way does to the n-th call that it is about.
func (w Way) rule(n int) (r vfs.Rule, some bool) {
	switch r.Nth = n; w {
	case Refused:
		r.Err = vfs.ErrInjected
	case Done:
		r.Err, r.Apply = vfs.ErrInjected, true
	case Half:
		r.Op, r.Short = vfs.OpWrite, true
	case Forgot:
		r.Op, r.Lose = vfs.OpSync, true
	case Commit, Told:
		return r, false
	}
	return r, true
}

// wrap is the member's disk for its next process.
func (b *breaking) wrap(m *member) vfs.FS {
	way, n := b.what.Way, b.what.Nth
	switch {
	case b.result.Met && b.what.Again > 0 && m.life == b.life+1:
		way, n = b.what.AgainWay, b.what.Again
	case b.result.Met:
		return m.disk.files
	case b.files != nil:
		for _, c := range b.files.Calls() {
			if r, _ := way.rule(0); r.Op == "" || r.Op == c.Op {
				b.calls++
			}
		}
	}
	rule, some := way.rule(n)
	if !b.result.Met {
		rule.Nth -= b.calls
	}
	rule.Hook = func(c vfs.Call) { b.hit(m, c, way) }
	b.files = vfs.NewFault(m.disk.files)
	if some && rule.Nth > 0 {
		b.files.SetRules(rule)
	}
	return b.files
}

// hit is told of the call.
func (b *breaking) hit(m *member, c vfs.Call, way Way) {
	m.s.say("%s: %v, %s", m.point(c), c, way)
	if b.result.Met {
		b.result.Recovering = m.node == nil || m.repairing
	} else {
		b.met(m, m.point(c))
	}
	if way == NoPower && m.dead == nil {
		m.dead = m.disk.powerless(m.s.chance.disk)
	}
}

func (b *breaking) met(m *member, point string) {
	b.result.Met, b.result.Point, b.life = true, point, m.life
	m.s.after(time.Millisecond, func() { b.result.Stopped = m.node == nil || m.life != b.life })
}

// commit decides about a commit of the member's store.
func (b *breaking) commit(m *member) (applied bool, err error) {
	way := b.what.Way
	if b.commits++; b.result.Met || b.commits != b.what.Nth || way != Commit && way != Told {
		return false, nil
	}
	b.met(m, m.phase()+": "+commitPoint)
	return way == Told, errFlush
}

// phase is what the member's process is at.
func (m *member) phase() string {
	switch {
	case m.node == nil && m.life == 1:
		return "first start"
	case m.node == nil:
		return "recovery"
	case m.repairing:
		return "repair"
	}
	return inService
}

const inService = "service"

// point names a call by what it is done to, when.
func (m *member) point(c vfs.Call) string { return m.phase() + ": " + callName(c) }

// callName names a call without numbers.
func callName(c vfs.Call) string {
	name := path.Base(c.Name)
	switch {
	case strings.HasSuffix(name, ".wal"):
		name = "segment of the log"
	case strings.HasSuffix(name, ".wal.new"):
		name = "next segment of the log"
	case strings.HasPrefix(name, "received-"):
		name = "received state"
	}
	return fmt.Sprintf("%s %s", c.Op, name)
}

// World is a scenario of calls that fail: a cluster whose first member starts,
// writes, changes segments, takes a state from its leader, compacts, recovers and is repaired.
type World struct {
	Config Config
	Plan   []fault.Event
}

// NewWorld is the scenario for a number of members.
func NewWorld(members int) World {
	w := World{Config: Config{
		Seed: 1, Members: members, Safety: 3 * time.Second, Calm: 20 * time.Second, Tick: 20 * time.Millisecond, ElectionTicks: 10,
		Clients: 2, Think: 50 * time.Millisecond, Timeout: time.Second, Keys: 8, ValueBytes: 400, Watchers: 1,
		FlushEvery: 100 * time.Millisecond, LogRetention: 1 << 10, SegmentBytes: 8 << 10, CompactBatch: 5,
		NetworkDelay: 200 * time.Microsecond, DiskDelay: 200 * time.Microsecond,
		Mix: workload.Mix{Put: 20, Get: 2, List: 1, Delete: 1, Swap: 5, Txn: 2, Compact: 1},
	}}
	at := func(ms int, k fault.Kind, d time.Duration) {
		w.Plan = append(w.Plan, fault.Event{At: time.Duration(ms) * time.Millisecond, Kind: k, For: d})
	}
	at(800, fault.Kill, 100*time.Millisecond)
	if members > 1 {
		at(1200, fault.Isolate, 700*time.Millisecond)
		at(2100, fault.HandOver, 0)
		at(2500, fault.Delete, 100*time.Millisecond)
	}
	return w
}

// RottenWorld is one in which the first member's database is damaged, and rebuilt.
func RottenWorld() World {
	w := NewWorld(3)
	w.Config.Safety = 1500 * time.Millisecond
	w.Plan = []fault.Event{{At: time.Second, Kind: fault.Rot, For: 100 * time.Millisecond}}
	return w
}

// FailCall runs a world in which a call fails.
func (w World) FailCall(c FailedCall) CallResult {
	b := &breaking{what: c}
	r := run(w.Config, w.Plan, nil, b)
	b.result.Result = r
	return b.result
}

// CallCounts is what all calls of a world, one after the other, have shown.
type CallCounts struct {
	Ways            map[Way]int    // calls that failed so
	Points          map[string]int // by what they were
	Stopped, WentOn int            // processes
	Again           int            // second failures, of calls of the recovery
	Failures        []string       `json:",omitempty"`
}

// FailCalls fails every step-th call of the world in each of the ways, one run
// for each. For the first again calls of each name, it fails each call of the
// recovery that follows, too, refused or by power, in turns.
func (w World) FailCalls(ways []Way, step, again int, tell func(string)) CallCounts {
	n := CallCounts{Ways: map[Way]int{}, Points: map[string]int{}}
	failed := func(c FailedCall, r *CallResult) {
		if r.Failure != nil {
			n.Failures = append(n.Failures, fmt.Sprintf("%d members, %v (%s): %v", w.Config.Members, c, r.Point, r.Failure))
			tell("FAIL " + n.Failures[len(n.Failures)-1])
		}
	}
	names := map[string]int{}
	for _, way := range ways {
		for nth := 1; ; nth += step {
			c := FailedCall{Nth: nth, Way: way}
			r := w.FailCall(c)
			if failed(c, &r); !r.Met {
				break
			}
			n.Ways[way]++
			n.Points[r.Point]++
			if !r.Stopped {
				n.WentOn++
				continue
			}
			n.Stopped++
			if names[r.Point]++; names[r.Point] > again {
				continue
			}
			for c.Again = 1; ; c.Again++ {
				c.AgainWay = []Way{Refused, NoPower}[(nth+c.Again)%2]
				r := w.FailCall(c)
				if failed(c, &r); !r.Recovering {
					break
				}
				n.Again++
			}
		}
		tell(fmt.Sprintf("%d members: %d calls, one after the other: %s", w.Config.Members, n.Ways[way], way))
	}
	return n
}

// Add counts another world's in.
func (n *CallCounts) Add(o CallCounts) {
	if n.Ways == nil {
		n.Ways, n.Points = map[Way]int{}, map[string]int{}
	}
	for k, v := range o.Ways {
		n.Ways[k] += v
	}
	for k, v := range o.Points {
		n.Points[k] += v
	}
	n.Stopped, n.WentOn, n.Again = n.Stopped+o.Stopped, n.WentOn+o.WentOn, n.Again+o.Again
	n.Failures = append(n.Failures, o.Failures...)
}

// Names are the points in order.
func (n *CallCounts) Names() []string { return slices.Sorted(maps.Keys(n.Points)) }
