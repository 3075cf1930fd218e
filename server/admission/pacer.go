package admission

import "math"

// The Pacer's constants. A level of 1 holds nobody back; each step down by
// stepDown lets half as many heavy requests run.
const (
	target     = 1.8   // how many times its quiet value a quiet client's mean time may be
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
	fastestBytes = 4 << 30  // just below level 1
)

// sample is what requests of quiet clients took in a period.
type sample struct {
	n   int
	sum int64 // nanoseconds
}

func (s sample) mean() float64 { return float64(s.sum) / float64(s.n) }

// paced are the classes whose quiet requests are timed.
var paced = [...]Class{Write, Read}

// pacer decides how much heavy work may go on. It is a value that steps from
// period to period.
type pacer struct {
	level  float64
	quiet  [classes]float64 // mean time of a class when nobody is heavy; 0: not known
	took   [classes]sample  // collected since the level last changed
	silent int              // periods in a row without a sample
	held   int              // periods since a quiet time was learned
	probes bool             // this period is a probe: as little as possible is heavy
}

// step ends a period. busy: there was heavy work, or it waits.
func (p *pacer) step(took [classes]sample, busy bool) {
	p.silent++
	p.held++
	for _, c := range paced {
		if took[c].n > 0 {
			p.silent = 0
		}
	}
	switch {
	case p.probes || !busy:
		p.learn(took)
		if p.held, p.took = 0, [classes]sample{}; !busy {
			p.level = min(1, p.level+stepFree)
		}
	case p.silent >= silence:
		p.took = [classes]sample{}
		p.level = min(1, p.level+stepFree)
	default:
		p.judge(took)
	}
	p.probes = busy && p.silent == 0 && p.held >= probeEvery && (p.level < 1 || p.unknown(took))
}

// learn takes what a time without heavy work shows as the quiet time.
func (p *pacer) learn(took [classes]sample) {
	for _, c := range paced {
		s := took[c]
		switch {
		case s.n < minSamples:
		case p.quiet[c] == 0:
			p.quiet[c] = s.mean()
		case p.probes:
			p.quiet[c] = min(s.mean(), p.quiet[c]*drift)
		default:
			p.quiet[c] += (s.mean() - p.quiet[c]) / 8
		}
	}
}

// judge compares what was collected with the quiet times, once it is enough.
func (p *pacer) judge(took [classes]sample) {
	worst := 0.0
	for _, c := range paced {
		s := &p.took[c]
		s.n, s.sum = s.n+took[c].n, s.sum+took[c].sum
		if s.n >= minSamples && p.quiet[c] > 0 {
			worst = max(worst, s.mean()/p.quiet[c])
		}
	}
	switch {
	case worst == 0:
		return
	case worst > target:
		p.level = max(0, p.level-stepDown)
	default:
		p.level = min(1, p.level+stepUp)
	}
	p.took = [classes]sample{}
}

// unknown reports whether there are requests whose quiet time was never seen.
func (p *pacer) unknown(took [classes]sample) bool {
	for _, c := range paced {
		if took[c].n > 0 && p.quiet[c] == 0 {
			return true
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
	return slowestBytes * math.Pow(fastestBytes/slowestBytes, p.level)
}
