package transport

import (
	"slices"
	"testing"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// asked is a clock whose timers fire at once, and which remembers them.
type asked struct {
	*clock.Fake
	rests []time.Duration
}

func (a *asked) NewTimer(d time.Duration) clock.Timer {
	a.rests = append(a.rests, d)
	t := a.Fake.NewTimer(d)
	a.Fake.Advance(d)
	return t
}

// TestReceiverRests: after each portion for as long as it took, but not too long.
func TestReceiverRests(t *testing.T) {
	c := &asked{Fake: clock.NewFake(time.Unix(0, 0))}
	p := pacer{clock: c, last: c.Now()}
	for _, took := range []time.Duration{time.Millisecond, 7 * time.Millisecond, time.Hour, 3 * time.Millisecond} {
		for range syncEvery/chunkBytes - 1 {
			p.took(t.Context(), chunkBytes)
		}
		c.Advance(took)
		p.took(t.Context(), chunkBytes)
	}
	want := []time.Duration{time.Millisecond, 7 * time.Millisecond, maxRest, 3 * time.Millisecond}
	if !slices.Equal(c.rests, want) {
		t.Errorf("rests of %v, want %v", c.rests, want)
	}
}
