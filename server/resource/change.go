package resource

import (
	"sync"

	"github.com/keelson-io/keelson/server/resource/object"
)

// change is one object's step from one revision to the next. Its frames are
// encoded once for each form in which they are asked for, and shared.
type change struct {
	rev      int64
	key      string
	old, new *entry // nil: it was not there, it is gone

	mu struct {
		sync.Mutex
		frames map[frameKey][]byte
	}
}

// frameKey names a form of a change: the type of event and the form of the object.
type frameKey struct {
	event string
	form  string
}

// Types of watch events.
const (
	eventAdded    = "ADDED"
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
	eventBookmark = "BOOKMARK"
	eventError    = "ERROR"
)

// seenBy returns what a change is to whom a selection restricts: an object that
// enters the selection is added, one that leaves it is deleted, and then as it was,
// at the revision of the change. An empty event means that nothing happened.
func (c *change) seenBy(s *Selection) (event string, body []byte) {
	was, is := s.matches(c.old), s.matches(c.new)
	switch {
	case is && was:
		return eventModified, c.new.json
	case is:
		return eventAdded, c.new.json
	case was:
		return eventDeleted, nil
	}
	return "", nil
}

// frame returns the line of a watch for an event. form makes the object that
// is sent of the object's bytes.
func (c *change) frame(event string, body []byte, form *form) []byte {
	key := frameKey{event, form.id}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.mu.frames[key]; ok {
		return f
	}
	if event == eventDeleted {
		body = object.Restamped(c.old.json, c.rev)
	}
	f := appendFrame(make([]byte, 0, len(body)+64), event, form.one(body))
	if c.mu.frames == nil {
		c.mu.frames = map[frameKey][]byte{}
	}
	c.mu.frames[key] = f
	return f
}

// appendFrame appends one line of a watch.
func appendFrame(b []byte, event string, body []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, event...)
	b = append(b, `","object":`...)
	b = append(b, body...)
	return append(b, '}', '\n')
}
