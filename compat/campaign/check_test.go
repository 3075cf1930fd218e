package campaign

import (
	"slices"
	"strings"
	"testing"
)

// TestChecksFindViolations breaks each property once.
func TestChecksFindViolations(t *testing.T) {
	history := []Event{
		{Key: prefix + "0/1", Value: "tag-0-0", Revision: 2, Create: 2, Version: 1},
		{Key: prefix + "0/1", Value: "tag-0-1", Revision: 3, Create: 2, Version: 2},
		{Key: counterKey + "0", Value: counterKey + "0=1", Revision: 4, Create: 4, Version: 1},
		{Key: lastKey, Value: "last", Revision: 5, Create: 5, Version: 1},
	}
	writes := []write{
		{key: prefix + "0/1", tag: "tag-0-0", acked: true, revision: 2},
		{key: prefix + "0/1", tag: "tag-0-1", acked: true, revision: 3},
	}
	fresh := func() *load {
		l := &load{watches: []*watchRecord{{through: "test"}}}
		l.mu.writes = [][]write{slices.Clone(writes)}
		l.increments[0].acked.Store(1)
		l.watches[0].mu.events = slices.Clone(history)
		return l
	}
	both := func() [][]Event { return [][]Event{slices.Clone(history), slices.Clone(history)} }
	if v := fresh().judge(both()); len(v) != 0 {
		t.Fatalf("a correct history is judged wrong: %q", v)
	}
	for want, breakIt := range map[string]func(*load, [][]Event) [][]Event{
		"members 1 and 2 differ": func(l *load, h [][]Event) [][]Event { h[1][1].Value = "x"; return h },
		"LOST: tag-0-2": func(l *load, h [][]Event) [][]Event {
			l.mu.writes[0] = append(l.mu.writes[0], write{tag: "tag-0-2", acked: true, revision: 9})
			return h
		},
		"was applied 2 times": func(l *load, h [][]Event) [][]Event {
			h[0][1].Value, h[1][1].Value = "tag-0-0", "tag-0-0"
			return h
		},
		"and is at 3":    func(l *load, h [][]Event) [][]Event { l.mu.writes[0][1].revision = 4; return h },
		"after one at 3": func(l *load, h [][]Event) [][]Event { slices.Reverse(l.mu.writes[0]); return h },
		"counter 0 is 1": func(l *load, h [][]Event) [][]Event { l.increments[0].acked.Store(2); return h },
		"event 1 is": func(l *load, h [][]Event) [][]Event {
			w := l.watches[0]
			w.mu.events = slices.Delete(w.mu.events, 1, 2)
			return h
		},
		"in no history": func(l *load, h [][]Event) [][]Event {
			w := l.watches[0]
			w.mu.events = append(w.mu.events, history[3])
			return h
		},
		"was refused and": func(l *load, h [][]Event) [][]Event {
			l.mu.writes[0][1] = write{tag: "tag-0-1", failed: true}
			return h
		},
	} {
		l := fresh()
		if v := l.judge(breakIt(l, both())); !strings.Contains(strings.Join(v, "\n"), want) {
			t.Errorf("want a violation with %q, got %q", want, v)
		}
	}
}
