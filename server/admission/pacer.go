package admission

import (
	"math"
	"math/bits"
	"time"
)

// The Pacer's constants. A level of 1 holds nobody back; each step down by
// stepDown lets half as many heavy requests run.
const (
	target     = 1.8   // how many times its quiet value a quiet client's mean time may be
	bulkTarget = 1.5   // how many times its value without large answers a loud one's may be
	stepDown   = 0.1   // of the level, after a time above target
	stepUp     = 0.015 // after one at or below it
	stepFree   = 0.1   // after a period without quiet clients, or without heavy requests
	minSamples = 5     // fewer tell nothing: the pacer goes on collecting
	// silence is how many periods without a request of a quiet client mean that
	// there is none. A slow member answers few.
	silence = 10
	// probeEvery is how many periods in a row others are held back before they are
	// stopped for one, so that a quiet time can be learned anew.
	probeEvery = 64
	// drift is by how much a probe may raise the quiet value: what was under way
	// when it began still slows it.
	drift = 1.1

	// fewest heavy requests of a class run at level 0: on a busy machine fewer
	// help nobody, because a single writer already costs a reader as much.
	fewest       = 4
	slowestBytes = 16 << 20 // a second, at level 0
	slowestBulk  = 80 << 20 // the same, for the sake of loud clients
	fastestBytes = 4 << 30  // just below level 1
)

// sample is what requests took in a period.
type sample struct {
	n   int
	sum int64 // nanoseconds
}

func (s *sample) add(took time.Duration) {
	s.n++
	s.sum += int64(took)
}

func (s sample) mean() float64 { return float64(s.sum) / float64(s.n) }

// paced are the classes whose requests are timed.
var paced = [...]Class{Write, Read}

// load is how many requests of a class run, by powers of two: a time is compared
// with one that was taken under the same load.
type load uint8

const loads = 14

func loadOf(running int) load { return load(min(bits.Len(uint(running)), loads-1)) }

type samples [classes][loads]sample

// pacer decides how much of one kind of work may go on that slows others down. It
// is a value that steps from period to period.
type pacer struct {
	target float64
	level  float64
	quiet  [classes][loads]float64 // mean times while nothing of that kind goes on; 0: not known
	took   samples                 // collected since the level last changed
	silent int                     // periods in a row without a sample
	held   int                     // periods since a quiet time was learned
	least  float64                 // bytes a second at level 0
	probes bool                    // this period is a probe: as little as possible goes on
}

// step ends a period. busy: there was work of the kind, or it waits.
func (p *pacer) step(took *samples, busy bool) {
	p.silent++
	p.held++
	for _, c := range paced {
		for _, s := range took[c] {
			if s.n > 0 {
				p.silent = 0
			}
		}
	}
	switch {
	case p.probes || !busy:
		p.learn(took)
		p.held, p.took = 0, samples{}
		if !busy {
			p.level = min(1, p.level+stepFree)
		}
	case p.silent >= silence:
		p.took = samples{}
		p.level = min(1, p.level+stepFree)
	default:
		p.judge(took)
	}
	p.probes = busy && p.silent == 0 && p.held >= probeEvery && (p.level < 1 || p.unknown(took))
}

// learn takes what a time without such work shows as the quiet time.
func (p *pacer) learn(took *samples) {
	for _, c := range paced {
		for l, s := range took[c] {
			quiet := &p.quiet[c][l]
			switch {
			case s.n < minSamples:
			case *quiet == 0:
				*quiet = s.mean()
			case p.probes:
				*quiet = min(s.mean(), *quiet*drift)
			default:
				*quiet += (s.mean() - *quiet) / 8
			}
		}
	}
}

// judge compares what was collected with the quiet times, once it is enough.
func (p *pacer) judge(took *samples) {
	worst := 0.0
	for _, c := range paced {
		for l := range took[c] {
			s := &p.took[c][l]
			s.n, s.sum = s.n+took[c][l].n, s.sum+took[c][l].sum
			if s.n >= minSamples && p.quiet[c][l] > 0 {
				worst = max(worst, s.mean()/p.quiet[c][l])
			}
		}
	}
	switch {
	case worst == 0:
		return
	case worst > p.target:
		p.level = max(0, p.level-stepDown)
	default:
		p.level = min(1, p.level+stepUp)
	}
	p.took = samples{}
}

// unknown reports whether there are requests whose quiet time was never seen.
func (p *pacer) unknown(took *samples) bool {
	for _, c := range paced {
		for l, s := range took[c] {
			if s.n > 0 && p.quiet[c][l] == 0 {
				return true
			}
		}
	}
	return false
}

// heavy is how many heavy requests of a class may run that has so many slots:
// never none, because the end of one is what makes the next one begin.
func (p *pacer) heavy(slots int) int {
	if p.probes {
		return 1
	}
	few := float64(min(fewest, slots))
	return int(math.Round(few * math.Pow(float64(slots)/few, p.level)))
}

// bytes is how many bytes of large answers may be built, and sent, in a second;
// 0: no bound.
func (p *pacer) bytes() float64 {
	switch {
	case p.probes:
		return slowestBytes
	case p.level >= 1:
		return 0
	}
	return p.least * math.Pow(fastestBytes/p.least, p.level)
}

// fewer is the lower of two bounds of which 0 is none.
func fewer(a, b float64) float64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
