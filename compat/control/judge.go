package control

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Tally counts what was judged.
type Tally struct {
	Streams, Events, Bookmarks, Lists, Items int
	Expired                                  int            // watches that were told that history is gone
	Errors                                   map[string]int // other errors told in a watch
	Relists, Repeated                        int            // states that were fetched anew, and changes that came twice by that
	Wrong                                    []string
}

func (t *Tally) wrong(format string, args ...any) {
	t.Wrong = append(t.Wrong, fmt.Sprintf(format, args...))
}

// Judge compares all that a client was told with the history:
//
//   - a list is exactly the selected objects at its resource version, which is as
//     fresh as was asked for: without resource version, not older than what had
//     been acknowledged before;
//   - what a watch begins with is a list in this sense;
//   - from where it begins to the last that it tells, a watch has each change of what
//     is selected once, in order, as what it is to the selection; and its bookmarks
//     come after all that is not later.
func Judge(history []event, w *Wire, t *Tally) {
	if t.Errors == nil {
		t.Errors = map[string]int{}
	}
	streams, lists := w.recorded()
	for _, s := range streams {
		t.Streams++
		judgeStream(history, w.name, s, t)
	}
	for _, l := range lists {
		t.Lists++
		t.Items += len(l.Items)
		judgeList(history, w.name, l, t)
	}
}

func judgeList(history []event, who string, l *listing, t *Tally) {
	rev := number(l.Metadata.ResourceVersion)
	paged := l.query.Get("continue") != ""
	fresh(who, &l.asked, rev, paged, t)
	want := l.sel.at(history, rev)
	keys := keysOf(want)
	if l.Metadata.Continue != "" || paged {
		// A page: what lies between its first and its last object.
		if len(l.Items) == 0 {
			return
		}
		first, last := l.sel.key(&l.Items[0]), l.sel.key(&l.Items[len(l.Items)-1])
		keys = slices.DeleteFunc(keys, func(k string) bool { return k < first || k > last })
	}
	compareItems(fmt.Sprintf("%s: list %s at %d", who, &l.asked, rev), &l.sel, want, keys, l.Items, t)
}

// fresh checks that an answer at rev is not older than what was asked for.
func fresh(who string, a *asked, rev int64, paged bool, t *Tally) {
	exact := a.query.Get("resourceVersionMatch") == "Exact" || a.wanted > 0 && a.query.Get("limit") != "" && a.query.Get("resourceVersionMatch") == ""
	switch {
	case paged:
	case exact && rev != a.wanted:
		t.wrong("%s: %s was answered at %d", who, a, rev)
	case rev < a.wanted:
		t.wrong("%s: %s was answered at %d", who, a, rev)
	case a.query.Get("resourceVersion") == "" && rev < a.began:
		t.wrong("%s: %s was answered at %d although %d had been acknowledged", who, a, rev, a.began)
	}
}

func compareItems(what string, sel *selection, want map[string]*state, keys []string, got []wireObject, t *Tally) {
	have := map[string]bool{}
	for i := range got {
		key := sel.key(&got[i])
		o := want[key]
		switch {
		case have[key]:
			t.wrong("%s: %s is there twice", what, key)
		case o == nil:
			t.wrong("%s: %s should not be there", what, key)
		case o.rev != got[i].rev() || o.Metadata.UID != got[i].Metadata.UID:
			t.wrong("%s: %s is of %d, want %d", what, key, got[i].rev(), o.rev)
		}
		have[key] = true
	}
	for _, key := range keys {
		if !have[key] {
			t.wrong("%s: %s is missing", what, key)
		}
	}
}

// key is where an object lies.
func (s *selection) key(o *wireObject) string {
	if o.Metadata.Namespace == "" {
		return s.prefix + o.Metadata.Name
	}
	return s.prefix + o.Metadata.Namespace + "/" + o.Metadata.Name
}

func judgeStream(history []event, who string, s *stream, t *Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := fmt.Sprintf("%s: watch %s", who, &s.asked)
	if s.broken != "" {
		t.wrong("%s: a line cannot be read: %s", what, s.broken)
	}
	events, at := s.events, s.wanted
	if s.query.Get("sendInitialEvents") == "true" {
		n := slices.IndexFunc(events, func(e wireEvent) bool { return e.initialEnd() })
		if n < 0 {
			return // it broke before its beginning was whole; clients begin again
		}
		at = events[n].Object.rev()
		fresh(who, &s.asked, at, false, t)
		objects := make([]wireObject, n)
		for i, e := range events[:n] {
			objects[i] = e.Object
			if e.Type != "ADDED" {
				t.wrong("%s: %s among the first events", what, e.Type)
			}
		}
		want := s.sel.at(history, at)
		compareItems(fmt.Sprintf("%s at %d", what, at), &s.sel, want, keysOf(want), objects, t)
		events = events[n+1:]
	} else if s.wanted == 0 {
		t.wrong("%s: a watch without a beginning is not judged", what)
		return
	}
	follow(history, what, s, events, at, t)
}

// follow compares a watch's events after revision at.
func follow(history []event, what string, s *stream, events []wireEvent, at int64, t *Tally) {
	next, done := iter.Pull(expected(history, &s.sel, at))
	defer done()
	want, more := next()
	for _, e := range events {
		rev := e.Object.rev()
		switch e.Type {
		case "ERROR":
			if e.Object.Code == 410 {
				t.Expired++
			} else {
				t.Errors[fmt.Sprintf("%d %s", e.Object.Code, e.Object.Reason)]++
			}
			continue
		case "BOOKMARK":
			t.Bookmarks++
			if more && want.rev <= rev {
				t.wrong("%s: a bookmark of %d came before %s of %s at %d", what, rev, want.kind, want.key, want.rev)
				return
			}
			if rev < at {
				t.wrong("%s: a bookmark of %d came after %d", what, rev, at)
			}
			at = rev
			continue
		}
		t.Events++
		key := s.sel.key(&e.Object)
		if !more || want.kind != e.Type || want.key != key || want.rev != rev {
			t.wrong("%s: %s of %s at %d, want %s of %s at %d", what, e.Type, key, rev, want.kind, want.key, want.rev)
			return
		}
		at = rev
		want, more = next()
	}
}

// told is an event as a watch has to tell it.
type told struct {
	kind, key string
	rev       int64
}

// expected are the events that a watch of sel has to tell after a revision.
func expected(history []event, sel *selection, after int64) iter.Seq[told] {
	return func(yield func(told) bool) {
		from, _ := slices.BinarySearchFunc(history, after+1, func(e event, rev int64) int { return int(e.rev - rev) })
		for _, e := range history[from:] {
			if kind := sel.seen(e); kind != "" && !yield(told{kind, e.key, e.rev}) {
				return
			}
		}
	}
}

func sortedKeys(keys iter.Seq[string]) []string { return slices.SortedFunc(keys, strings.Compare) }

// lastPart is what errors of a kind have in common: what follows the last colon.
func lastPart(text string) string {
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}
