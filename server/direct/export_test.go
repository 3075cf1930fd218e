package direct

import "time"

// KeepPongs has pongs wait for an answer that takes them along.
func (l *Listener) KeepPongs() { l.pongs.pause = time.Hour }

// StreamBytes may wait for a client.
const StreamBytes = streamBytes

// Conn is where a stream came on.
func (s *Stream) Conn() *Conn { return s.call.conn }

// Waiting is what a call has to send.
func (c *Conn) Waiting(id uint32) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call := c.mu.calls[id]; call != nil {
		return call.left
	}
	return 0
}

// Books are what a connection counts.
func (c *Conn) Books() (window, debt int64, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.window, c.mu.debt, c.mu.held
}
