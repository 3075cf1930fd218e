package real

import (
	"errors"
	"strings"
	"testing"
)

// TestTape plays three writes of two writers, and then breaks each promise once.
func TestTape(t *testing.T) {
	a, b, c := tagOf(0, 1), tagOf(1, 1), tagOf(0, 2)
	for want, play := range map[string]func(*tape){
		"":                            func(*tape) {},
		"told of revision 6 after 4":  func(p *tape) { p.event("m1", 4, 6, tagOf(0, 9)) },
		"told of revision 4 after 4":  func(p *tape) { p.event("m1", 4, 4, c) },
		"another of":                  func(p *tape) { p.event("m2", 3, 4, tagOf(5, 5)) },
		"and at another":              func(p *tape) { p.event("m1", 4, 5, a) },
		"had been acknowledged":       func(p *tape) { p.answered(tagOf(2, 1), 5, 5) },
		"both acknowledged":           func(p *tape) { p.answered(tagOf(2, 1), 1, 4) },
		"where the log has":           func(p *tape) { p.answered(tagOf(2, 1), 4, 7) },
		"was refused, and had its":    func(p *tape) { p.refuses(b) },
		"O4: write 30000000001 was a": func(p *tape) { p.answered(tagOf(2, 1), 4, 5); p.event("m1", 4, 5, tagOf(2, 2)) },
	} {
		p := newTape()
		for rev, what := range []tag{a, b, c} {
			for _, m := range []string{"m1", "m2"} {
				p.event(m, int64(rev)+1, int64(rev)+2, what)
			}
		}
		p.answered(a, p.called(), 2) // b's answer never came
		p.answered(c, p.called(), 4)
		p.refuses(tagOf(3, 1))
		play(p)
		if got := errors.Join(p.lost()...); want == "" && got != nil || want != "" && (got == nil || !strings.Contains(got.Error(), want)) {
			t.Errorf("want %q, got %v", want, got)
		}
	}
	for _, x := range []tag{a, b, tagOf(200, 1<<30)} {
		if got := tagOfValue(x.value(64)); got != x || len(x.value(64)) != 64 {
			t.Errorf("%x comes back as %x", x, got)
		}
	}
}
