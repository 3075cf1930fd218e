package resource

import (
	"context"
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/server/resource/object"
)

// Events are served in two groups and stored as the core group has them. The
// newer form names some fields otherwise.
var eventNames = [][2]string{ // events.k8s.io, core
	{"regarding", "involvedObject"}, {"note", "message"}, {"reportingController", "reportingComponent"},
	{"deprecatedSource", "source"}, {"deprecatedFirstTimestamp", "firstTimestamp"},
	{"deprecatedLastTimestamp", "lastTimestamp"}, {"deprecatedCount", "count"},
}

func eventFromCore(o object.Object) object.Object {
	out := renamed(o, 1, 0)
	out["apiVersion"] = "events.k8s.io/v1"
	return out
}

func eventIntoCore(o object.Object) object.Object {
	out := renamed(o, 0, 1)
	out["apiVersion"] = "v1"
	return out
}

func renamed(o object.Object, from, to int) object.Object {
	out := make(object.Object, len(o))
	for name, v := range o {
		for _, pair := range eventNames {
			if name == pair[from] {
				name = pair[to]
				break
			}
		}
		out[name] = v
	}
	return out
}

// eventLeases gives out the leases that make Events go by themselves. Events of
// about the same time share one.
type eventLeases struct {
	mu struct {
		sync.Mutex
		id    api.LeaseID
		until time.Time
	}
}

// get returns a lease that lives for eventTTL at least.
func (e *eventLeases) get(ctx context.Context, l *Layer) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := l.clock.Now()
	if e.mu.id != 0 && now.Before(e.mu.until) {
		return int64(e.mu.id), nil
	}
	id, err := l.store.Grant(ctx, int64((eventTTL+leaseShare)/time.Second))
	if err != nil {
		return 0, err
	}
	e.mu.id, e.mu.until = id, now.Add(leaseShare)
	return int64(id), nil
}
