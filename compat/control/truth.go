package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

const registry = "/registry/"

// Truth is the history of all objects, as a watch of the store itself tells it:
// what every list and every watch of the layer above is judged by.
type Truth struct {
	mu struct {
		sync.Mutex
		events []event
		rev    int64
		moved  chan struct{}
		failed error
	}
}

// event is one change of one key.
type event struct {
	rev      int64
	key      string
	old, new *state // nil: it was not there, it is gone
}

// state is what judges ask of an object at one revision.
type state struct {
	rev      int64
	Metadata struct {
		Name, Namespace, UID string
		Labels, Annotations  map[string]string
		Generation           int64
		DeletionTimestamp    string
		OwnerReferences      []struct{ UID string }
	}
	Spec struct {
		NodeName, HolderIdentity string
		Replicas                 int64
		LeaseTransitions         int64
		LeaseDurationSeconds     int64
		AcquireTime, RenewTime   string
	}
	Status struct {
		Phase              string
		Replicas           int64
		ObservedGeneration int64
		Conditions         []struct{ Type, Status string }
	}
}

// Follow reads the store's history from its first revision on, until ctx ends. A watch
// that ends, because its member has no leader, is taken up where it was.
func (t *Truth) Follow(ctx context.Context, c *clientv3.Client) {
	held := map[string]*state{}
	for next := int64(1); ctx.Err() == nil; next = t.Rev() + 1 {
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		for resp := range c.Watch(watching, registry, clientv3.WithPrefix(), clientv3.WithRev(next)) {
			if resp.CompactRevision > 0 {
				t.end(fmt.Errorf("the store's history: %w", resp.Err()))
				cancel()
				return
			}
			if resp.Err() == nil {
				t.take(held, resp)
			}
		}
		cancel()
	}
	t.end(ctx.Err())
}

func (t *Truth) take(held map[string]*state, resp clientv3.WatchResponse) {
	if len(resp.Events) == 0 {
		return
	}
	var events []event
	for _, ev := range resp.Events {
		key := string(ev.Kv.Key)
		e := event{rev: ev.Kv.ModRevision, key: key, old: held[key]}
		if ev.Type == clientv3.EventTypeDelete {
			delete(held, key)
		} else {
			e.new = parseState(ev.Kv.Value)
			e.new.rev = e.rev
			held[key] = e.new
		}
		events = append(events, e)
	}
	t.add(events, events[len(events)-1].rev)
}

// parseState reads what the layer stores: JSON.
func parseState(value []byte) *state {
	s := &state{}
	if bytes.HasPrefix(value, []byte("{")) {
		_ = json.Unmarshal(value, s) // then it differs from everything
	}
	return s
}

func (t *Truth) add(events []event, rev int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.events = append(t.mu.events, events...)
	t.mu.rev = rev
	t.wakeLocked()
}

func (t *Truth) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.failed = err
	t.wakeLocked()
}

func (t *Truth) wakeLocked() {
	if t.mu.moved != nil {
		close(t.mu.moved)
		t.mu.moved = nil
	}
}

// Until waits until the history has come to a revision.
func (t *Truth) Until(ctx context.Context, rev int64) error {
	for {
		t.mu.Lock()
		if t.mu.moved == nil {
			t.mu.moved = make(chan struct{})
		}
		have, failed, moved := t.mu.rev, t.mu.failed, t.mu.moved
		t.mu.Unlock()
		if have >= rev {
			return nil
		}
		if failed != nil {
			return failed
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("the history has come to %d, not to %d: %w", have, rev, ctx.Err())
		}
	}
}

// All returns the history so far.
func (t *Truth) All() []event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.events[:len(t.mu.events):len(t.mu.events)]
}

// Rev is how far it is.
func (t *Truth) Rev() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.rev
}

// selection is what a list or a watch is restricted to.
type selection struct {
	prefix    string // of keys
	namespace string
	labels    labels.Selector
	fields    fields.Selector
}

func (s *selection) matches(o *state) bool {
	if o == nil || s.namespace != "" && o.Metadata.Namespace != s.namespace {
		return false
	}
	of := fields.Set{"metadata.name": o.Metadata.Name, "metadata.namespace": o.Metadata.Namespace, "spec.nodeName": o.Spec.NodeName}
	return s.labels.Matches(labels.Set(o.Metadata.Labels)) && s.fields.Matches(of)
}

// at is the selected objects, by key, at a revision.
func (s *selection) at(events []event, rev int64) map[string]*state {
	out := map[string]*state{}
	for _, e := range events {
		if e.rev > rev {
			break
		}
		if !strings.HasPrefix(e.key, s.prefix) {
			continue
		}
		if s.matches(e.new) {
			out[e.key] = e.new
		} else {
			delete(out, e.key)
		}
	}
	return out
}

// seen is what a watcher is told of a change; an empty kind: nothing.
func (s *selection) seen(e event) (kind string) {
	if !strings.HasPrefix(e.key, s.prefix) {
		return ""
	}
	was, is := s.matches(e.old), s.matches(e.new)
	switch {
	case was && is:
		return "MODIFIED"
	case is:
		return "ADDED"
	case was:
		return "DELETED"
	}
	return ""
}

// keysOf gives the keys of some objects, in order.
func keysOf(objects map[string]*state) []string { return sortedKeys(maps.Keys(objects)) }
