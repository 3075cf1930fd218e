package resource

import (
	"slices"
)

// places bounds what is served at a time. Each class has its own: a flood of lists
// does not keep a lease from being renewed.
type places struct {
	reads, writes, heartbeats, watches chan struct{}
}

func newPlaces() places {
	return places{
		make(chan struct{}, maxReads), make(chan struct{}, maxWrites),
		make(chan struct{}, maxHeartbeats), make(chan struct{}, maxWatches),
	}
}

// enter takes a place, or refuses: clients come back after Retry-After.
func (p *places) enter(c *call) (leave func(), err error) {
	class := p.reads
	switch {
	case c.verb == "watch":
		class = p.watches
	case c.Group == "coordination.k8s.io" || c.Group == "" && c.Plural == "nodes" && c.Sub == "status":
		class = p.heartbeats
	case !slices.Contains([]string{"get", "list"}, c.verb):
		class = p.writes
	}
	select {
	case class <- struct{}{}:
		return func() { <-class }, nil
	default:
		return nil, tooMany("Too many requests, please try again later.")
	}
}
