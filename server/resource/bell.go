package resource

// bell wakes the one who waits for it. Rung before, or often, it wakes once. A watcher
// waits for its bell alone, whatever may concern it: with a thousand of them, a wait for
// one of six channels is what an event costs most of all.
type bell struct {
	rung  chan struct{}
	place int // in the collection's list; under its lock
}

func newBell() *bell { return &bell{rung: make(chan struct{}, 1)} }

func (b *bell) ring() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

// listen gives a bell that is rung after every change of the collection, until leave.
func (c *collection) listen() *bell {
	b := newBell()
	c.list(b)
	return b
}

func (c *collection) list(b *bell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.place = len(c.mu.bells)
	c.mu.bells = append(c.mu.bells, b)
}

func (c *collection) leave(b *bell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.mu.bells) - 1
	c.mu.bells[b.place] = c.mu.bells[last]
	c.mu.bells[b.place].place = b.place
	c.mu.bells[last] = nil
	c.mu.bells = c.mu.bells[:last]
}

// ring rings for all who listen.
func (c *collection) ring() {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.ringLocked()
}

func (c *collection) ringLocked() {
	for _, b := range c.mu.bells {
		b.ring()
	}
}
