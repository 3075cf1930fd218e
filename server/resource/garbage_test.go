package resource

import (
	"math/big"
	"testing"
	"time"

	"github.com/keelson-io/keelson/server/resource/object"
)

// TestDoom walks the ways out of the store.
func TestDoom(t *testing.T) {
	pods := &Kind{Plural: "pods", Name: "Pod"}
	now := time.Unix(1_700_000_000, 0)
	object1 := func(s string) object.Object {
		o, _, err := object.Decode([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	zero := int64(0)
	for _, c := range []struct {
		name, pod string
		opts      deleteOptions
		grace     int64 // -1: gone
	}{
		{"nowhere", `{"metadata":{}}`, deleteOptions{}, -1},
		{"running", `{"metadata":{},"spec":{"nodeName":"n"}}`, deleteOptions{}, 30},
		{"its own grace", `{"metadata":{},"spec":{"nodeName":"n","terminationGracePeriodSeconds":5}}`, deleteOptions{}, 5},
		{"at once", `{"metadata":{},"spec":{"nodeName":"n"}}`, deleteOptions{grace: &zero}, -1},
		{"ended", `{"metadata":{},"spec":{"nodeName":"n"},"status":{"phase":"Failed"}}`, deleteOptions{}, -1},
		{"held", `{"metadata":{"finalizers":["a/b"]}}`, deleteOptions{}, 0},
		{"foreground", `{"metadata":{}}`, deleteOptions{propagation: "Foreground"}, 0},
		{"dying, sooner", `{"metadata":{"deletionTimestamp":"x","deletionGracePeriodSeconds":30},"spec":{"nodeName":"n"}}`, deleteOptions{grace: &zero}, -1},
		{"dying, no later", `{"metadata":{"deletionTimestamp":"x","deletionGracePeriodSeconds":3},"spec":{"nodeName":"n"}}`, deleteOptions{}, 3},
	} {
		next, err := doom(pods, object1(c.pod), c.opts, now)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if next == nil {
			if c.grace != -1 {
				t.Errorf("%s: gone", c.name)
			}
			continue
		}
		if g, _ := object.Int(next, "metadata", "deletionGracePeriodSeconds"); g != c.grace || object.String(next, "metadata", "deletionTimestamp") == "" {
			t.Errorf("%s: %v, want a grace of %d", c.name, next, c.grace)
		}
	}
	if _, err := doom(pods, object1(`{"metadata":{"uid":"a"}}`), deleteOptions{uid: "b"}, now); asFailure(err) == nil || asFailure(err).Code != 409 {
		t.Errorf("another uid: %v", err)
	}
}

func TestQuantities(t *testing.T) {
	for in, want := range map[string]string{"1": "1", "100m": "100m", "1.5": "1500m", "2000": "2k", "1Gi": "1073741824", "1e3": "1k", "0": "0", "2500m": "2500m", "3M": "3M"} {
		r, ok := parseQuantity(in)
		if !ok || formatQuantity(r, "1") != want {
			t.Errorf("%s is %v %s, want %s", in, ok, formatQuantity(r, "1"), want)
		}
	}
	if r, _ := parseQuantity("1.5Gi"); formatQuantity(r, "4Gi") != "1536Mi" {
		t.Errorf("1.5Gi is %s", formatQuantity(r, "4Gi"))
	}
	for _, in := range []string{"", "x", "1Q", "1e999999999", "--1", "1..2"} {
		if r, ok := parseQuantity(in); ok {
			t.Errorf("%q is read as %v", in, r)
		}
	}
	if r, _ := parseQuantity("0.1"); r.Cmp(big.NewRat(1, 10)) != 0 {
		t.Errorf("0.1 is %v", r)
	}
}

// TestRing keeps what it promises when it is full.
func TestRing(t *testing.T) {
	var r ring
	r.reset(10)
	for i := range ringEvents + 5 {
		r.push(&change{rev: int64(11 + i)})
	}
	if _, ok := r.after(nil, 10); ok {
		t.Error("it says that it has what it gave up")
	}
	last := int64(10 + ringEvents + 5)
	if got, ok := r.after(nil, last-2); !ok || len(got) != 2 || got[1].rev != last {
		t.Errorf("%v %v", got, ok)
	}
	if got, ok := r.after(nil, 15); !ok || len(got) != ringEvents || got[0].rev != 16 {
		t.Errorf("from the floor on: %d %v", len(got), ok)
	}
}
