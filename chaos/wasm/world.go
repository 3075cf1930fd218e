package main

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"time"

	"github.com/keelson-io/keelson/chaos/sim"
)

// world is one run: the nodes, the network between them, the time. All of it is
// used by one goroutine at a time: the instances are coroutines of the world's.
type world struct {
	cfg   Config
	image *image
	rand  *rand.Rand
	now   time.Duration // since the run began
	queue events
	order int // of events that are due at the same time
	nodes []*node
	net   network
	trace hash.Hash64
	log   io.Writer // nil: nobody wants to know

	began   time.Duration // when the load began
	record  []byte        // what they have
	faults  []happened
	exits   []exit
	lines   []line
	stats   sim.Stats
	healed  time.Duration
	over    bool
	failure error
}

func newWorld(cfg Config, img *image, log io.Writer) *world {
	w := &world{cfg: cfg, image: img, rand: rand.New(rand.NewPCG(cfg.Seed, 0xb)), trace: fnv.New64a(), log: log}
	w.net = newNetwork(w)
	return w
}

// event is something that will happen.
type event struct {
	at    time.Duration
	order int
	do    func()
}

type events []*event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// after lets something happen later. Times never go back, so what is due already
// happens next.
func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, &event{at: w.now + d, order: w.order, do: do})
}

// run lets happen what is due until the world is over.
func (w *world) run() error {
	defer func() {
		for _, n := range w.nodes {
			n.machine.end()
		}
	}()
	for !w.over {
		if len(w.queue) == 0 {
			return fmt.Errorf("nothing is left to happen at %v", w.now)
		}
		e := heap.Pop(&w.queue).(*event)
		w.now = max(w.now, e.at)
		if w.now > w.cfg.limit() {
			return fmt.Errorf("liveness: the clients have not ended at %v", w.now)
		}
		e.do()
	}
	return w.failure
}

// finish ends the run.
func (w *world) finish(err error) {
	w.over = true
	if w.failure == nil {
		w.failure = err
	}
}

// note adds to the trace, whose hash says whether two runs are the same.
func (w *world) note(n *node, what string, number int64, data []byte) {
	fmt.Fprintf(w.trace, "%d %d %s %d %d:", w.now, n.number, what, number, len(data))
	w.trace.Write(data)
}

// say tells whoever looks on.
func (w *world) say(format string, args ...any) {
	if w.log != nil {
		fmt.Fprintf(w.log, "%10.6f %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// between draws a duration.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rand.Int64N(int64(most-least)+1))
}
