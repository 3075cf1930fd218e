package mvcc

import (
	"sync"

	"github.com/keelson-io/keelson/api"
)

// watchSource is what the hub needs of the store behind it.
type watchSource interface {
	// History calls fn for the events with from <= Rev <= to, in the order of
	// (Rev, Sub), until fn returns false. It returns ErrCompacted when from is
	// below the compact revision or when compaction overtakes the read. Events
	// and their bytes live on after the call; FixPrev works inside fn.
	History(from, to api.Revision, fn func(*Event) bool) error
	// CompactRevision is the revision below which history is gone.
	CompactRevision() api.Revision
}

// hub hands published events to watchers. See publish for its one promise.
type hub struct {
	source watchSource

	mu struct {
		sync.Mutex
		published api.Revision // every event <= published is queued or readable as history
	}
}

func newHub(source watchSource, published api.Revision) *hub {
	h := &hub{source: source}
	h.mu.published = published
	return h
}

// publish queues events, which are all those in (published, rev] in order, to
// the watchers registered before, then calls expose, which makes rev visible to
// readers, all under the lock that registrations take. So nobody can learn of
// rev before a watcher registered earlier has it queued. Called by the apply
// goroutine only.
func (h *hub) publish(rev api.Revision, events []*Event, expose func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.published = rev
	expose()
}
