package control

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// lived is a history of one object that is made, changed twice and deleted, and of
// another in between.
func lived() []event {
	object := func(name string, rev int64, tier string) *state {
		s := &state{rev: rev}
		s.Metadata.Name, s.Metadata.Namespace, s.Metadata.UID = name, "default", "uid-"+name
		s.Metadata.Labels = map[string]string{tierLabel: tier}
		return s
	}
	a2, a3, a5, b4 := object("a", 2, "front"), object("a", 3, "back"), object("a", 5, "front"), object("b", 4, "front")
	key := registry + "configmaps/default/"
	return []event{
		{2, key + "a", nil, a2}, {3, key + "a", a2, a3}, {4, key + "b", nil, b4}, {5, key + "a", a3, a5}, {6, key + "a", a5, nil},
	}
}

func line(kind, name string, rev int64) string {
	return fmt.Sprintf(`{"type":%q,"object":{"metadata":{"name":%q,"namespace":"default","uid":"uid-%s","resourceVersion":"%d"}}}`, kind, name, name, rev)
}

func mark(rev int64, end string) string {
	return fmt.Sprintf(`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"%d"%s}}}`, rev, end)
}

const endMark = `,"annotations":{"k8s.io/initial-events-end":"true"}`

// TestJudgeWatches: whatever a watch tells that is not the history is found.
func TestJudgeWatches(t *testing.T) {
	all, some, begins := "watch=true&resourceVersion=2", "watch=true&resourceVersion=2&labelSelector=tier%3Dfront", "watch=true&sendInitialEvents=true&resourceVersion="
	for name, c := range map[string]struct {
		query string
		lines []string
		wrong string
	}{
		"all of it":              {all, []string{line("MODIFIED", "a", 3), line("ADDED", "b", 4), mark(4, ""), line("MODIFIED", "a", 5), line("DELETED", "a", 6)}, ""},
		"enters and leaves":      {some, []string{line("DELETED", "a", 3), line("ADDED", "b", 4), line("ADDED", "a", 5), line("DELETED", "a", 6)}, ""},
		"cut off":                {all, []string{line("MODIFIED", "a", 3)}, ""},
		"one is lost":            {all, []string{line("MODIFIED", "a", 3), line("MODIFIED", "a", 5)}, "want ADDED"},
		"one comes twice":        {all, []string{line("MODIFIED", "a", 3), line("MODIFIED", "a", 3)}, "want ADDED"},
		"as something else":      {some, []string{line("MODIFIED", "a", 3)}, "want DELETED"},
		"a bookmark too early":   {all, []string{mark(3, "")}, "a bookmark of 3 came before"},
		"a bookmark goes back":   {all, []string{line("MODIFIED", "a", 3), mark(2, "")}, "came after 3"},
		"more than there was":    {all, []string{line("MODIFIED", "a", 3), line("ADDED", "b", 4), line("MODIFIED", "a", 5), line("DELETED", "a", 6), line("ADDED", "a", 7)}, "ADDED of"},
		"begins":                 {begins, []string{line("ADDED", "a", 3), line("ADDED", "b", 4), mark(4, endMark), line("MODIFIED", "a", 5)}, ""},
		"begins without one":     {begins, []string{line("ADDED", "a", 3), mark(4, endMark)}, "b is missing"},
		"begins with an old one": {begins, []string{line("ADDED", "a", 2), line("ADDED", "b", 4), mark(4, endMark)}, "is of 2, want 3"},
		"begins too early":       {begins, []string{line("ADDED", "a", 3), mark(3, endMark)}, "although 4 had been acknowledged"},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWire("w", func() int64 { return 4 })
			a, ok := w.askedOf(httptest.NewRequest("GET", "/api/v1/configmaps?"+c.query, nil))
			if !ok {
				t.Fatal("not seen as a watch")
			}
			s := &stream{asked: a}
			for _, l := range c.lines {
				s.line([]byte(l))
			}
			w.mu.streams = append(w.mu.streams, s)
			expectWrong(t, w, c.wrong)
		})
	}
}

func expectWrong(t *testing.T, w *Wire, want string) {
	t.Helper()
	tally := &Tally{}
	Judge(lived(), w, tally)
	got := strings.Join(tally.Wrong, "\n")
	if want == "" && got != "" || want != "" && !strings.Contains(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// TestJudgeLists: so is a list.
func TestJudgeLists(t *testing.T) {
	for name, c := range map[string]struct {
		query, rev string
		items      []string // name@revision
		wrong      string
	}{
		"newest":      {"", "4", []string{"a@3", "b@4"}, ""},
		"any":         {"resourceVersion=0", "2", []string{"a@2"}, ""},
		"too old":     {"", "3", []string{"a@3"}, "although 4 had been acknowledged"},
		"older":       {"resourceVersion=5", "4", []string{"a@3", "b@4"}, "was answered at 4"},
		"not exact":   {"resourceVersion=3&resourceVersionMatch=Exact", "4", []string{"a@3", "b@4"}, "was answered at 4"},
		"one is gone": {"", "4", []string{"b@4"}, "a is missing"},
		"one is new":  {"resourceVersion=0", "3", []string{"a@3", "b@4"}, "b should not be there"},
		"twice":       {"", "4", []string{"a@3", "a@3", "b@4"}, "is there twice"},
		"selected":    {"labelSelector=tier%3Dback", "4", []string{"a@3", "b@4"}, "b should not be there"},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWire("w", func() int64 { return 4 })
			a, _ := w.askedOf(httptest.NewRequest("GET", "/api/v1/namespaces/default/configmaps?"+c.query, nil))
			l := &listing{asked: a}
			l.Metadata.ResourceVersion = c.rev
			for _, item := range c.items {
				name, rev, _ := strings.Cut(item, "@")
				var o wireObject
				o.Metadata.Name, o.Metadata.Namespace, o.Metadata.UID, o.Metadata.ResourceVersion = name, "default", "uid-"+name, rev
				l.Items = append(l.Items, o)
			}
			w.mu.lists = append(w.mu.lists, l)
			expectWrong(t, w, c.wrong)
		})
	}
}

// TestJudgeElection: two that lead at once, and a lease that was taken too early, are found.
func TestJudgeElection(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1_700_000_000+int64(s), 0).UTC() }
	held := func(rev int64, who string, acquired, renewed int, transitions int64) *state {
		s := &state{rev: rev}
		s.Spec.HolderIdentity, s.Spec.LeaseDurationSeconds, s.Spec.LeaseTransitions = who, 7, transitions
		s.Spec.AcquireTime, s.Spec.RenewTime = at(acquired).Format(time.RFC3339Nano), at(renewed).Format(time.RFC3339Nano)
		return s
	}
	const key = registry + "leases/default/l"
	x1, x2 := held(2, "x", 0, 0, 0), held(3, "x", 0, 5, 0)
	for taken, wrong := range map[int]int{11: 1, 12: 0} {
		y := held(4, "y", taken, taken, 1)
		e := JudgeElection([]event{{2, key, nil, x1}, {3, key, x1, x2}, {4, key, x2, y}}, key)
		if len(e.Wrong) != wrong || e.Transitions != 1 || e.HolderAt(3) != "x" || e.HolderAt(9) != "y" {
			t.Errorf("taken at %d: %+v", taken, e)
		}
	}
	for from, wrong := range map[int]int{4: 1, 5: 0} {
		if got := Overlaps([]Term{{"y", at(from), at(9)}, {"x", at(1), at(5)}}); len(got) != wrong {
			t.Errorf("from %d: %q", from, got)
		}
	}
}
