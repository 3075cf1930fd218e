package resource

import (
	"sync"
	"sync/atomic"

	"github.com/keelson-io/keelson/server/resource/object"
)

// change is one object's step from one revision to the next. Its frames are
// encoded once for each form in which they are asked for, and shared.
type change struct {
	rev      int64
	key      string
	old, new *entry // nil: it was not there, it is gone

	encoding sync.Mutex            // one encodes at a time
	frames   atomic.Pointer[frame] // those that there are; changed under encoding
}

// frame is the line of a watch: an event about an object in a form.
type frame struct {
	event, form string
	line        []byte
	next        *frame
}

func (f *frame) find(event, form string) *frame {
	for f != nil && (f.event != event || f.form != form) {
		f = f.next
	}
	return f
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
	if f := c.frames.Load().find(event, form.id); f != nil {
		return f.line
	}
	c.encoding.Lock()
	defer c.encoding.Unlock()
	there := c.frames.Load()
	if f := there.find(event, form.id); f != nil {
		return f.line
	}
	if event == eventDeleted {
		body = object.Restamped(c.old.json, c.rev)
	}
	line := appendFrame(make([]byte, 0, len(body)+64), event, form.one(body))
	c.frames.Store(&frame{event, form.id, line, there})
	return line
}

// appendFrame appends one line of a watch.
func appendFrame(b []byte, event string, body []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, event...)
	b = append(b, `","object":`...)
	b = append(b, body...)
	return append(b, '}', '\n')
}
