package oracle

import (
	"cmp"
	"regexp"
	"slices"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
)

// Gap is a time in which no probe of any member was answered.
type Gap struct{ From, To time.Duration }

// Long is how long the gap is.
func (g Gap) Long() time.Duration { return g.To - g.From }

// Gaps are the times between answered probes, of all members or, unless it is 0,
// of one, the longest first. A gap begins when the last probe that was answered
// was sent.
func Gaps(h *history.History, member uint64) (out []Gap) {
	var ok []history.Probe
	for _, p := range h.Probes {
		if p.OK && (member == 0 || p.Member == member) {
			ok = append(ok, p)
		}
	}
	slices.SortFunc(ok, func(a, b history.Probe) int { return cmp.Compare(a.Return, b.Return) })
	for i := 1; i < len(ok); i++ {
		if ok[i].Return > ok[i-1].Return {
			out = append(out, Gap{ok[i-1].Return, ok[i].Return})
		}
	}
	slices.SortStableFunc(out, func(a, b Gap) int { return cmp.Compare(b.Long(), a.Long()) })
	return out
}

// What a cluster owes that nothing is done to: limits for a machine that is busy
// with other work too. What a fault costs is measured, not judged.
const (
	calmElections = 4                // election timeouts in which it must have a leader
	calmGrace     = 5 * time.Second  // and be served
	auditGrace    = 10 * time.Second // in which a fault that has ended explains what is printed
)

// Available is O9: with no fault under way, writes are answered without a gap of
// more than some election timeouts, and at the end every member answers.
func Available(c *Case) []error {
	var f findings
	limit := calmElections*c.Election + calmGrace
	for _, g := range Gaps(c.History, 0) {
		if calm := c.calm(g); calm > limit {
			f.add("no write was answered between %v and %v, %v of that without a fault", g.From, g.To, calm)
		}
	}
	if c.Healed == 0 || len(c.Probes) == 0 || c.End-c.Healed < limit {
		return f
	}
	for _, m := range c.Members {
		if !slices.ContainsFunc(c.Probes, func(p history.Probe) bool { return p.OK && p.Member == m.ID && p.Return > c.Healed }) {
			f.add("member %s answered no write in the %v after faults had ended", m.Name, c.End-c.Healed)
		}
	}
	return f
}

// calm is how long of a gap's end no fault was under way.
func (c *Case) calm(g Gap) time.Duration {
	from := g.From
	for _, x := range c.Faults {
		end := x.End
		if end == 0 {
			end = cmp.Or(c.Healed, c.End)
		}
		if x.Begin < g.To && end > from {
			from = end
		}
	}
	return max(0, g.To-from)
}

// Some growth that is no leak.
const (
	resourceSamples = 6 // fewer say nothing
	spareMemory     = 64 << 20
	spareCount      = 50 // goroutines, files
)

// Resources is O10: at the end a member uses what it used at the beginning, a
// tenth more, and what it stores.
func Resources(c *Case) []error {
	var f findings
	for _, m := range c.Members {
		var of []history.Sample
		for _, s := range c.Samples {
			if s.Member == m.ID {
				of = append(of, s)
			}
		}
		if len(of) < resourceSamples {
			continue
		}
		first, last := most(of[:len(of)/3]), least(of[len(of)-len(of)/3:])
		if limit := first.RSS*11/10 + max(0, last.Disk-first.Disk) + spareMemory; last.RSS > limit {
			f.add("member %s uses %d bytes of memory at the end, %d at the beginning, with %d and %d bytes on its disk", m.Name, last.RSS, first.RSS, last.Disk, first.Disk)
		}
		if last.Goroutines > first.Goroutines*11/10+spareCount {
			f.add("member %s has %d goroutines at the end, %d at the beginning", m.Name, last.Goroutines, first.Goroutines)
		}
		if last.Files > first.Files*11/10+spareCount {
			f.add("member %s has %d files open at the end, %d at the beginning", m.Name, last.Files, first.Files)
		}
	}
	return f
}

func most(of []history.Sample) (m history.Sample) {
	for _, s := range of {
		m.RSS, m.Goroutines, m.Files, m.Disk = max(m.RSS, s.RSS), max(m.Goroutines, s.Goroutines), max(m.Files, s.Files), max(m.Disk, s.Disk)
	}
	return m
}

func least(of []history.Sample) history.Sample {
	m := of[0]
	for _, s := range of {
		m.RSS, m.Goroutines, m.Files, m.Disk = min(m.RSS, s.RSS), min(m.Goroutines, s.Goroutines), min(m.Files, s.Files), min(m.Disk, s.Disk)
	}
	return m
}

// Corrupting are the kinds of faults that damage what a member has stored, or was
// sent.
var Corrupting = regexp.MustCompile(`^(flip|zero|corrupt|damage|misdirect|stale)`)

var (
	tellsDamage = regexp.MustCompile(`(?i)damage|corrupt|checksum|differ`)
	isPanic     = regexp.MustCompile(`(?m)^(panic|fatal error|unexpected fault address)\b|goroutine \d+ \[`)
)

// Logs is O11: nothing above a warning is printed without a fault, and what was
// damaged is told by the member it was done to.
func Logs(c *Case) []error {
	var f findings
	for _, l := range c.LogLines {
		if severe(l.Level) && !c.during(l.At, auditGrace) {
			f.add("member %s printed without a fault at %v: %s %s", c.Name(l.Member), l.At, l.Level, l.Text)
		}
	}
	for _, x := range c.Faults {
		if Corrupting.MatchString(x.Kind) && !slices.ContainsFunc(c.LogLines, func(l history.LogLine) bool {
			return l.At >= x.Begin && (x.Member == 0 || l.Member == x.Member) && tellsDamage.MatchString(l.Text)
		}) {
			f.add("nobody told of the damage done at %v: %s", x.Begin, x.Text)
		}
	}
	return f
}

func severe(level string) bool {
	return slices.Contains([]string{"ERROR", "error", "DPANIC", "PANIC", "FATAL", "panic", "fatal"}, level)
}

// during reports whether a fault was under way, or had been shortly before.
func (c *Case) during(at, grace time.Duration) bool {
	return slices.ContainsFunc(c.Faults, func(x *history.Fault) bool {
		return x.Begin <= at && (x.End == 0 || at <= x.End+grace)
	})
}

// Stopping are the kinds of faults after which a member may stop by itself, and
// say so.
var Stopping = regexp.MustCompile(`disk|sync|write|read-only|space|flip|zero|corrupt|damage|memory|flush|power|remove`)

// Exits is O12: a member ends when the harness ends it, or stops by itself after a
// fault that is a reason for it. It never panics.
func Exits(c *Case) []error {
	var f findings
	for _, e := range c.History.Exits {
		excused := slices.ContainsFunc(c.Faults, func(x *history.Fault) bool {
			return Stopping.MatchString(x.Kind) && (x.Member == 0 || x.Member == e.Member) && x.Begin <= e.At && (x.End == 0 || e.At <= x.End+auditGrace)
		})
		switch {
		case isPanic.MatchString(e.Text):
			f.add("member %s panicked at %v: %s", c.Name(e.Member), e.At, e.Text)
		case !e.Wanted && !excused:
			f.add("member %s ended by itself at %v with code %d, signal %q: %s", c.Name(e.Member), e.At, e.Code, e.Signal, e.Text)
		}
	}
	return f
}

// FirstAck is the time from a fault to the first acknowledgement of a write that
// was asked for after it.
func FirstAck(h *history.History, f *history.Fault) (first time.Duration, ok bool) {
	for _, p := range h.Probes {
		if p.OK && p.Call >= f.Begin && (!ok || p.Return-f.Begin < first) {
			first, ok = p.Return-f.Begin, true
		}
	}
	return first, ok
}
