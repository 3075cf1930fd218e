package main

import (
	"maps"
	"slices"
	"time"

	"github.com/keelson-io/keelson/raft/vfs"
)

// node is a computer: what stays when its process dies.
type node struct {
	*world
	number  int // members from 1 on, then the clients'
	name    string
	ip      string
	args    []string
	clients bool

	disk      *vfs.Mem
	life      int
	powered   bool
	machine   *machine // nil before the first
	listeners map[string]bool
	ends      map[uint32]*end // of connections that its process has
	accepted  uint32
	wall      time.Duration // by how much its date is wrong
	stalled   time.Duration // until when its disk does nothing
	full      int           // faults that fill its disk
}

// lose ends the node's process, and with power all that was not synced. The process
// may be the one that runs: then it has to end itself.
func (w *world) lose(n *node, power bool) {
	n.machine.dead = true
	w.stats.Crashes++
	for _, id := range slices.Sorted(maps.Keys(n.ends)) {
		n.ends[id].abandon(power)
	}
	clear(n.ends)
	clear(n.listeners)
	if power {
		w.stats.PowerCuts++
		n.powered, n.disk = false, n.disk.CrashClone(w.rand)
	} else {
		n.disk = n.disk.Clone()
	}
}

// crash ends the process of a node from outside.
func (w *world) crash(n *node, power bool) {
	if !n.machine.dead {
		w.lose(n, power)
	} else if power && n.powered {
		n.powered, n.disk = false, n.disk.CrashClone(w.rand)
	}
	n.machine.end()
}

// recover starts a node whose process was ended, unless something else has.
func (w *world) recover(n *node) {
	if n.machine.dead {
		w.boot(n)
	}
}
