package direct

import "time"

// KeepPongs has pongs wait for an answer that takes them along.
func (l *Listener) KeepPongs() { l.pongs.pause = time.Hour }

// Books are what a connection counts.
func (c *Conn) Books() (window, debt int64, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.window, c.mu.debt, c.mu.held
}
