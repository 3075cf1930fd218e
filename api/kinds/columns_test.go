package kinds

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// cells shows an object, given as JSON, with all columns of its kind.
func cells(t *testing.T, object string) string {
	t.Helper()
	o, err := Decode([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range Cells(Columns(o.APIVersion, o.Kind), o.Fields, noon, false) {
		out = append(out, fmt.Sprint(c))
	}
	return strings.Join(out, "|")
}

// TestPods has what kubectl shows for pods in trouble; the rules are those of
// Kubernetes' own printer.
func TestPods(t *testing.T) {
	for _, tc := range []struct{ spec, status, want string }{
		{`{"name":"c"}`, `"phase":"Pending"`, "0/1|Pending|0"},
		{`{"name":"c"}`, `"phase":"Running","containerStatuses":[{"ready":true,"state":{"running":{}}}]`, "1/1|Running|0"},
		{`{"name":"c"}`, `"phase":"Running","containerStatuses":[{"restartCount":4,"state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"finishedAt":"2026-01-02T11:30:00Z"}}}]`,
			"0/1|CrashLoopBackOff|4 (30m ago)"},
		{`{"name":"c"}`, `"phase":"Succeeded","containerStatuses":[{"state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]`, "0/1|Completed|0"},
		{`{"name":"a"},{"name":"b"}`, `"phase":"Running","conditions":[{"type":"Ready","status":"True"}],
			"containerStatuses":[{"state":{"terminated":{"reason":"Completed"}}},{"ready":true,"state":{"running":{}}}]`, "1/2|Running|0"},
		{`{"name":"a"},{"name":"b"}`, `"phase":"Running","containerStatuses":[{"state":{"terminated":{"reason":"Completed"}}},{"state":{"terminated":{"exitCode":2,"reason":"Error"}}}]`,
			"0/2|Error|0"},
		{`{"name":"c"}`, `"phase":"Failed","containerStatuses":[{"state":{"terminated":{"exitCode":137,"signal":9}}}]`, "0/1|Signal:9|0"},
		{`{"name":"c"}`, `"phase":"Failed","reason":"Evicted"`, "0/1|Evicted|0"},
		{`{"name":"c"}`, `"phase":"Pending","conditions":[{"type":"PodScheduled","reason":"SchedulingGated"}]`, "0/1|SchedulingGated|0"},
		{`{"name":"c"}],"initContainers":[{"name":"i"},{"name":"j"}`, `"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{}}},{"name":"j","state":{"running":{}}}]`,
			"0/1|Init:1/2|0"},
		{`{"name":"c"}],"initContainers":[{"name":"i"}`, `"phase":"Pending","initContainerStatuses":[{"name":"i","restartCount":3,"state":{"waiting":{"reason":"ErrImagePull"}}}]`,
			"0/1|Init:ErrImagePull|3"},
		{`{"name":"c"}],"initContainers":[{"name":"i"}`, `"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":1}}}]`,
			"0/1|Init:ExitCode:1|0"},
		{`{"name":"c"}],"initContainers":[{"name":"s","restartPolicy":"Always"}`,
			`"phase":"Running","initContainerStatuses":[{"name":"s","restartCount":2,"started":true,"ready":true,"state":{"running":{}}}],
			"containerStatuses":[{"restartCount":1,"ready":true,"state":{"running":{}}}]`, "2/2|Running|3"},
	} {
		pod := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","creationTimestamp":"2026-01-02T11:00:00Z"},"spec":{"containers":[%s]},"status":{%s}}`, tc.spec, tc.status)
		if have, want := cells(t, pod), "p|"+tc.want+"|60m|<none>|<none>|<none>|<none>"; have != want {
			t.Errorf("%s\nhave %s\nwant %s", tc.status, have, want)
		}
	}
	gone := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","deletionTimestamp":"2026-01-02T11:00:00Z"},"status":{"phase":"Running"}}`
	if have := cells(t, gone); !strings.HasPrefix(have, "p|0/0|Terminating|0|<unknown>") {
		t.Error(have)
	}
}

// TestEmptyObjects shows an object without anything but its name, and one whose
// fields have absurd types, for every kind that has columns of its own.
func TestEmptyObjects(t *testing.T) {
	for kind, columns := range layouts() {
		group, k, _ := strings.Cut(kind, " ")
		version := "v1"
		if r := find(func(r *Resource) bool { return r.Group == group && r.Kind == k }); r != nil {
			version = r.APIVersion()
		} else {
			t.Errorf("no resource has the kind %s", kind)
		}
		if Lookup(version, k) == nil {
			t.Errorf("the table has no %s", kind)
		}
		absurd := map[string]any{"metadata": []any{1}, "spec": "x", "status": map[string]any{"conditions": []any{"x", nil}, "loadBalancer": 1.5}, "subsets": []any{nil}}
		for _, o := range []map[string]any{nil, {"metadata": map[string]any{"name": "n"}}, absurd} {
			if have := Cells(columns, o, noon, true); len(have) != len(columns) {
				t.Errorf("%s: %d cells", kind, len(have))
			}
		}
	}
}

func TestAge(t *testing.T) {
	for _, tc := range []struct {
		d    time.Duration
		want string
	}{
		{-3 * time.Second, "<invalid>"}, {-time.Second, "0s"}, {119 * time.Second, "119s"}, {2 * time.Minute, "2m"}, {2*time.Minute + 5*time.Second, "2m5s"},
		{10*time.Minute + 9*time.Second, "10m"}, {179 * time.Minute, "179m"}, {180 * time.Minute, "3h"}, {3*time.Hour + time.Minute, "3h1m"},
		{47 * time.Hour, "47h"}, {48 * time.Hour, "2d"}, {49 * time.Hour, "2d1h"}, {8 * 24 * time.Hour, "8d"}, {729 * 24 * time.Hour, "729d"},
		{730 * 24 * time.Hour, "2y"}, {731 * 24 * time.Hour, "2y1d"}, {9 * 365 * 24 * time.Hour, "9y"},
	} {
		if have := Age(tc.d); have != tc.want {
			t.Errorf("%v: %s, want %s", tc.d, have, tc.want)
		}
	}
}

func TestSelector(t *testing.T) {
	s := View{"matchLabels": map[string]any{"b": "2", "a": "1"}, "matchExpressions": []any{
		map[string]any{"key": "c", "operator": "NotIn", "values": []any{"y", "x"}}, map[string]any{"key": "aa", "operator": "Exists"},
		map[string]any{"key": "d", "operator": "DoesNotExist"}}}
	if have, want := selector(s), "a=1,aa,b=2,c notin (x,y),!d"; have != want {
		t.Errorf("%s, want %s", have, want)
	}
}
