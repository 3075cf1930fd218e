package oracle

import (
	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Watches is O3: what each watch has said keeps watchcheck's promises. That none
// stays behind is for the liveness phase, which knows when faults ended.
func Watches(c *Case) []error {
	var f findings
	truth := watchcheck.NewHistory(c.Model.Events)
	for _, w := range c.History.Watches {
		for _, err := range watchcheck.All(w.Watch, truth) {
			f.add("watch of client %d on member %x, opened at %v for %q-%q from %d: %w",
				w.Client, w.Member, w.Opened, w.Request.Key, w.Request.End, w.Request.Start, err)
		}
	}
	return f
}
