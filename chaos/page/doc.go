// Package page draws a history as one page of HTML that needs nothing else: what
// the run was, what its judges said, and a timeline of calls, latencies, faults,
// leaders, availability, watches and memory over one axis.
//
// Write is the entry; lanes.go makes the lanes of the timeline, page.html is the
// page.
package page
