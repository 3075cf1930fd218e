package mvcc

import (
	"sync"
	"time"

	"github.com/keelson-io/keelson/api"
)

// Bounds of the pin cache. A pinned root keeps the index nodes that have been
// replaced since, so neither many nor old ones are kept: a list that pauses
// longer between two pages is served all the same, only its count takes a scan.
const (
	maxPins = 16
	pinLife = 30 * time.Second
)

// pinCache remembers the index of some past revisions.
type pinCache struct {
	mu struct {
		sync.Mutex
		pins []pin // least recently pinned first
	}
}

type pin struct {
	rev  api.Revision
	root node
	used time.Time
}

func (c *pinCache) add(rev api.Revision, root node, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range c.mu.pins {
		if p.rev == rev {
			root = p.root
			c.mu.pins = append(c.mu.pins[:i], c.mu.pins[i+1:]...)
			break
		}
	}
	if len(c.mu.pins) == maxPins {
		c.mu.pins = append(c.mu.pins[:0], c.mu.pins[1:]...)
	}
	c.mu.pins = append(c.mu.pins, pin{rev, root, now})
}

func (c *pinCache) get(rev api.Revision) node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.mu.pins {
		if c.mu.pins[i].rev == rev {
			return c.mu.pins[i].root
		}
	}
	return nil
}

// expire drops what is older than its life or compacted.
func (c *pinCache) expire(now time.Time, compact api.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.mu.pins[:0]
	for _, p := range c.mu.pins {
		if now.Sub(p.used) < pinLife && p.rev >= compact {
			kept = append(kept, p)
		}
	}
	clear(c.mu.pins[len(kept):])
	c.mu.pins = kept
}
