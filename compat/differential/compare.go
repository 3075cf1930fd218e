package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// ttlTolerance is how far the remaining TTLs of a lease may differ: the two
// stores granted it, and are asked, a moment apart.
const ttlTolerance = 10 * time.Second

// compareAnswers says how two answers differ, or nothing.
func compareAnswers(a, b Answer) string {
	var out []string
	for i, x := range []Answer{a, b} {
		for _, rule := range x.Broken {
			out = append(out, fmt.Sprintf("%s breaks a rule: %s", [2]string{"left", "right"}[i], rule))
		}
	}
	switch {
	case a.Code != b.Code || a.Text != b.Text:
		out = append(out, fmt.Sprintf("error: %v %q or %v %q", a.Code, a.Text, b.Code, b.Text))
	case (a.Msg == nil) != (b.Msg == nil):
		out = append(out, "only one side sent a message")
	case a.Msg != nil && !equalMessages(a.Msg, b.Msg):
		out = append(out, clip(cmp.Diff(a.Msg, b.Msg, protocmp.Transform()), 6000))
	}
	return strings.Join(out, "\n")
}

func equalMessages(a, b proto.Message) bool {
	x, isTTL := a.(*pb.LeaseTimeToLiveResponse)
	y, both := b.(*pb.LeaseTimeToLiveResponse)
	if isTTL && both && x.TTL > 0 && y.TTL > 0 {
		tolerance := int64(ttlTolerance / time.Second)
		if d := x.TTL - y.TTL; d >= -tolerance && d <= tolerance {
			y.TTL = x.TTL
		}
	}
	return proto.Equal(a, b)
}

// compareControl compares created and canceled responses.
func compareControl(a, b []*pb.WatchResponse) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return "only right sent: " + show(b[i])
		case i >= len(b):
			return "only left sent: " + show(a[i])
		case !proto.Equal(a[i], b[i]):
			return cmp.Diff(a[i], b[i], protocmp.Transform())
		}
	}
	return ""
}

// compareLogs compares what the watchers of a stream were told.
func compareLogs(a, b map[int64][]watchEntry) string {
	ids := slices.Sorted(maps.Keys(a))
	for id := range b {
		if _, ok := a[id]; !ok {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		x, y := a[id], b[id]
		for i := range max(len(x), len(y)) {
			switch {
			case i >= len(x):
				return fmt.Sprintf("watch %d: right was told %d things more, first %s", id, len(y)-len(x), y[i])
			case i >= len(y):
				return fmt.Sprintf("watch %d: left was told %d things more, first %s", id, len(x)-len(y), x[i])
			case !x[i].equal(y[i]):
				return fmt.Sprintf("watch %d, thing %d:\nleft  %s\nright %s", id, i, x[i], y[i])
			}
		}
	}
	return ""
}

func (e watchEntry) equal(o watchEntry) bool {
	return proto.Equal(e.event, o.event) && proto.Equal(e.canceled, o.canceled)
}

func (e watchEntry) String() string {
	if e.event != nil {
		return show(e.event)
	}
	return show(e.canceled)
}

func show(m proto.Message) string {
	data, err := protojson.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return clip(string(data), 3000)
}

// String shows an answer on one line, shortened.
func (a Answer) String() string {
	if a.Msg == nil {
		return fmt.Sprintf("%v %q", a.Code, a.Text)
	}
	return show(a.Msg)
}

func clip(s string, n int) string {
	if len(s) > n {
		return fmt.Sprintf("%s … (%d bytes)", s[:n], len(s))
	}
	return s
}
