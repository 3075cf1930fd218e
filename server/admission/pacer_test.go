package admission

import "testing"

// member plays a member for a pacer: what a quiet client's requests take grows
// with the heavy ones that run.
type member struct {
	pacer
	quiet float64 // nanoseconds when nobody is heavy
	each  float64 // what each heavy request adds
	slots int
	load  load
}

func (m *member) period(busy bool, n int) (mean float64) {
	mean = m.quiet
	if busy {
		mean += m.each * float64(m.heavy(m.slots))
	}
	var took samples
	took[Read][m.load] = sample{n, int64(mean) * int64(n)}
	m.step(&took, busy)
	return mean
}

func newMember() *member {
	return &member{pacer: pacer{target: target, least: slowestBytes, level: 1}, quiet: 1e6, each: 5e4, slots: 4096}
}

func (m *member) run(t *testing.T, periods int, want float64) {
	t.Helper()
	over := 0
	for range periods {
		if m.period(true, 20) > want*m.quiet {
			over++
		}
	}
	if over > periods/10 {
		t.Errorf("in %d of %d periods a quiet client's requests took more than %.1f times their quiet time", over, periods, want)
	}
}

func TestPacerKeepsQuietClientsTimes(t *testing.T) {
	m := newMember()
	for range 20 {
		m.period(false, 20)
	}
	for range 10 {
		m.period(true, 20) // it takes some periods to find the level
	}
	m.run(t, 2000, 1.3*target)
	if n := m.heavy(m.slots); n < 4 {
		t.Errorf("only %d heavy requests may run; 20 would do no harm", n)
	}
	for range 20 {
		m.period(false, 20)
	}
	if m.level != 1 || m.bytes() != 0 {
		t.Errorf("after the heavy client left the level is %v", m.level)
	}
}

// TestPacerLearnsUnderLoad: no quiet time was ever seen.
func TestPacerLearnsUnderLoad(t *testing.T) {
	m := newMember()
	for range 200 {
		m.period(true, 20)
	}
	m.run(t, 1000, 1.3*target)
}

// TestPacerFollowsASlowerMember: the quiet time itself grows, so holding others
// back is of no use.
func TestPacerFollowsASlowerMember(t *testing.T) {
	m := newMember()
	for range 100 {
		m.period(true, 20)
	}
	m.quiet, m.each = 20e6, 0
	for range 64 * 60 {
		m.period(true, 20)
	}
	if m.level < 1 {
		t.Errorf("level %v: heavy clients are held back although they harm nobody", m.level)
	}
}

// TestPacerHearsSlowClients: a member that is so slow that few requests of quiet
// clients end in a period is not one without quiet clients.
func TestPacerHearsSlowClients(t *testing.T) {
	m := newMember()
	for range 20 {
		m.period(false, 20)
	}
	for range 400 {
		m.period(true, 1)
	}
	for range 100 {
		if mean := m.period(true, 1); mean > 4*m.quiet {
			t.Fatalf("a quiet client's requests take %.1f times their quiet time", mean/m.quiet)
		}
	}
}

// TestPacerNeedsAVictim: where all do the same, nobody is held back.
func TestPacerNeedsAVictim(t *testing.T) {
	m := newMember()
	for range 1000 {
		m.period(true, 0)
		if m.heavy(m.slots) != m.slots || m.bytes() != 0 {
			t.Fatal("heavy clients are held back for nobody")
		}
	}
}

func TestPacerBounds(t *testing.T) {
	p := pacer{least: slowestBytes}
	if p.heavy(100) != fewest || p.heavy(2) != 2 || p.bytes() != slowestBytes {
		t.Errorf("at level 0: %d, %v", p.heavy(100), p.bytes())
	}
	p.level, p.probes = 1, true
	if p.heavy(100) != 1 || p.bytes() != slowestBytes {
		t.Errorf("a probe: %d, %v", p.heavy(100), p.bytes())
	}
}
