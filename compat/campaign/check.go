package campaign

import (
	"fmt"
	"strconv"
	"strings"
)

// judge gives every violation found. histories is what each member told.
func (l *load) judge(histories [][]Event) []string {
	l.mu.Lock()
	out := l.mu.broken
	l.mu.Unlock()
	out = append(out, checkEqual(histories)...)
	history := histories[0]
	for _, ws := range l.mu.writes {
		out = append(out, checkWrites(ws, history)...)
	}
	out = append(out, l.checkCounters(history)...)
	for _, w := range l.watches {
		out = append(out, w.check(history)...)
	}
	return out
}

// checkEqual: Equal.
func checkEqual(histories [][]Event) (out []string) {
	for i, h := range histories[1:] {
		for j := range max(len(h), len(histories[0])) {
			if j >= len(h) || j >= len(histories[0]) || h[j] != histories[0][j] {
				out = append(out, fmt.Sprintf("members 1 and %d differ at event %d of %d and %d", i+2, j, len(histories[0]), len(h)))
				break
			}
		}
	}
	for i := 1; i < len(histories[0]); i++ {
		if histories[0][i].Revision < histories[0][i-1].Revision {
			out = append(out, fmt.Sprintf("history goes back to revision %d at event %d", histories[0][i].Revision, i))
		}
	}
	return out
}

// checkWrites: Durable, Once and Ordered, for one writer.
func checkWrites(writes []write, history []Event) (out []string) {
	if len(writes) == 0 {
		return nil
	}
	owner := strings.Join(strings.Split(writes[0].tag, "-")[:2], "-") + "-"
	found := map[string][]Event{}
	for _, ev := range history {
		if strings.HasPrefix(ev.Value, owner) {
			found[ev.Value] = append(found[ev.Value], ev)
		}
	}
	last := int64(0)
	for _, w := range writes {
		events := found[w.tag]
		switch {
		case len(events) > 1:
			out = append(out, fmt.Sprintf("%s was applied %d times, first at revisions %d and %d", w.tag, len(events), events[0].Revision, events[1].Revision))
		case w.failed && len(events) > 0:
			out = append(out, fmt.Sprintf("%s was refused and applied at revision %d", w.tag, events[0].Revision))
		case !w.acked:
		case len(events) == 0:
			out = append(out, fmt.Sprintf("LOST: %s, acknowledged at revision %d, is in no history", w.tag, w.revision))
		case events[0].Revision != w.revision || events[0].Key != w.key:
			out = append(out, fmt.Sprintf("%s was acknowledged at revision %d and is at %d, key %q", w.tag, w.revision, events[0].Revision, events[0].Key))
		}
		if w.acked {
			if w.revision <= last {
				out = append(out, fmt.Sprintf("%s was acknowledged at revision %d after one at %d", w.tag, w.revision, last))
			}
			last = w.revision
		}
	}
	return out
}

// checkCounters: Counted.
func (l *load) checkCounters(history []Event) (out []string) {
	for i := range counters {
		key := counterKey + strconv.Itoa(i)
		n := 0
		for _, ev := range history {
			if ev.Key != key {
				continue
			}
			n++
			if want := fmt.Sprintf("%s=%d", key, n); ev.Value != want {
				out = append(out, fmt.Sprintf("counter %d: revision %d says %q, want %q", i, ev.Revision, ev.Value, want))
				break
			}
		}
		acked, unknown := int(l.increments[i].acked.Load()), int(l.increments[i].unknown.Load())
		if n < acked || n > acked+unknown {
			out = append(out, fmt.Sprintf("counter %d is %d after %d acknowledged and %d unknown increments", i, n, acked, unknown))
		}
	}
	return out
}

// check: Watched.
func (w *watchRecord) check(history []Event) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.err != nil {
		out = append(out, fmt.Sprintf("the watch through %s ended: %v", w.through, w.mu.err))
	}
	i := 0
	for _, ev := range history {
		if !strings.HasPrefix(ev.Key, prefix) {
			continue
		}
		if i >= len(w.mu.events) || w.mu.events[i] != ev {
			got := "nothing"
			if i < len(w.mu.events) {
				got = fmt.Sprintf("%+v", w.mu.events[i])
			}
			return append(out, fmt.Sprintf("the watch through %s: event %d is %s, want %+v", w.through, i, got, ev))
		}
		i++
	}
	if i < len(w.mu.events) {
		out = append(out, fmt.Sprintf("the watch through %s told %d events that are in no history", w.through, len(w.mu.events)-i))
	}
	return out
}
