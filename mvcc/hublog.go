package mvcc

// Bounds of the hub, in hubLimits so that tests reach them early. They are reached when a client does not read what it
// watches, or when writes outrun everybody.
const (
	// maxLogBytes bounds the recent events that are kept for watchers which
	// have not taken them yet, all watchers together. Whoever needs an event
	// that fell out reads history instead, so this is a cache, not a promise.
	maxLogBytes = 32 << 20
	// maxLogEvents bounds the same in number, for the cost of small ones.
	maxLogEvents = 1 << 17
	// maxBatchBytes is about what one response carries when a watcher has
	// several revisions waiting. A single revision may be larger: it is never
	// split here.
	maxBatchBytes = 128 << 10
	// maxReplayEvents bounds the events that one step of catching up looks at,
	// so that a view of the engine is not held for long.
	maxReplayEvents = 1 << 16
	// maxReplayLocked is how many revisions may be read under the hub's lock,
	// to end a race between a writer and a watcher that has almost caught up.
	maxReplayLocked = 32
	// maxControls bounds the answers to a client's requests that it has not
	// read yet; beyond it the stream's requests wait.
	maxControls = 1024
)

// hubLimits are the bounds above; defaultHubLimits has their values.
type hubLimits struct {
	logBytes, logEvents      int
	batchBytes, replayEvents int
}

var defaultHubLimits = hubLimits{
	logBytes: maxLogBytes, logEvents: maxLogEvents,
	batchBytes: maxBatchBytes, replayEvents: maxReplayEvents,
}

// eventLog holds recent events under rising sequence numbers. Old ones fall out
// at the bounds; all do when no watcher waits for any.
type eventLog struct {
	first  int64    // sequence number of the first event that is still here
	events []*Event // first, first+1, …; the live part of a sliding window
	bytes  int
}

func (l *eventLog) append(e *Event, limits *hubLimits) int64 {
	for len(l.events) > 0 && (l.bytes >= limits.logBytes || len(l.events) >= limits.logEvents) {
		l.bytes -= footprint(l.events[0])
		l.events[0] = nil // the window slides over one array: let the event go
		l.events = l.events[1:]
		l.first++
	}
	l.events = append(l.events, e)
	l.bytes += footprint(e)
	return l.first + int64(len(l.events)) - 1
}

// get returns nil when the event has fallen out.
func (l *eventLog) get(seq int64) *Event {
	if seq < l.first {
		return nil
	}
	return l.events[seq-l.first]
}

func (l *eventLog) clear() {
	l.first += int64(len(l.events))
	clear(l.events)
	l.events = l.events[:0]
	l.bytes = 0
}

// footprint is what an event takes: its records, and their copies on the wire.
func footprint(e *Event) int {
	const fixed = 256 // the struct, its headers and the slots that point to it
	return fixed + len(e.Key) + 2*(len(e.KV)+len(e.Prev))
}
