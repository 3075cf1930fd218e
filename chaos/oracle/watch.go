package oracle

import (
	"time"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// Watches is O3: what each watch has said keeps watchcheck's promises. Where the
// history says when faults ended, each watch that is open must then be told of
// everything in time.
func Watches(c *Case) []error {
	var f findings
	truth := watchcheck.NewHistory(c.Model.Events)
	for _, w := range c.History.Watches {
		for _, err := range watchcheck.All(w.Watch, truth) {
			f.add("watch of client %d on member %x, opened at %v for %q-%q from %d: %w",
				w.Client, w.Member, w.Opened, w.Request.Key, w.Request.End, w.Request.Start, err)
		}
		if n := watchcheck.Behind(w.Watch, truth, c.Model.Rev); c.Healed > 0 && w.Ended == 0 && n != 0 {
			f.add("watch of client %d on member %x, opened at %v for %q-%q from %d, is open and lacks %d events of those up to %d",
				w.Client, w.Member, w.Opened, w.Request.Key, w.Request.End, w.Request.Start, n, c.Model.Rev)
		}
	}
	c.checkLag(&f)
	return f
}

// WatchDelay is how long an event may take after faults have ended, and after
// somebody could know of it.
const WatchDelay = 5 * time.Second

// checkLag compares when events came with when anybody knew of them.
func (c *Case) checkLag(f *findings) {
	if c.Healed == 0 {
		return
	}
	known := c.known()
	for _, w := range c.History.Watches {
		for i, r := range w.Responses {
			if len(r.Events) == 0 || i >= len(w.At) {
				continue
			}
			rev := r.Events[len(r.Events)-1].Kv.ModRevision
			if from := max(c.Healed, w.Opened, known(rev)); w.At[i] > from+WatchDelay {
				f.add("watch of client %d on member %x was told of revision %d at %v, %v after it could be", w.Client, w.Member, rev, w.At[i], w.At[i]-from)
				break
			}
		}
	}
}

// known gives when a revision was first known to somebody.
func (c *Case) known() func(rev int64) time.Duration {
	at := map[int64]time.Duration{}
	for _, p := range c.placed {
		if p.Changed {
			at[p.Rev] = p.At
		}
	}
	return func(rev int64) time.Duration { return at[rev] }
}
