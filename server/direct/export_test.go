package direct

// Books are what a connection counts.
func (c *Conn) Books() (window, debt int64, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.window, c.mu.debt, c.mu.held
}
