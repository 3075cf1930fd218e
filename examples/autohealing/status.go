package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// printStatus prints how things are, once a second, and what was just broken.
func (w *world) printStatus(ctx context.Context) {
	for sleep(ctx, time.Second) {
		fmt.Println(w.line(ctx))
	}
}

// line is one line of the status:
//
//	13:05:12  ready 7/10  #######...  leader m2  revision 214  <- deleted pod web-7f-3
func (w *world) line(ctx context.Context) string {
	ready := w.ready()
	leader, revision := "none", "?"
	if m, rev := w.cluster.leader(ctx); m != nil {
		leader, revision = m.name, rev
	}
	bar := strings.Repeat("#", min(ready, replicas)) + strings.Repeat(".", max(replicas-ready, 0)) + strings.Repeat("+", max(ready-replicas, 0))
	line := fmt.Sprintf("%s  ready %2d/%d  %-12s  leader %-4s  revision %-5s", time.Now().Format(time.TimeOnly), ready, replicas, bar, leader, revision)
	if broken := w.news.take(); len(broken) > 0 {
		line += "  <- " + strings.Join(broken, ", ")
	}
	return line
}

// ready counts the pods that serve.
func (w *world) ready() (n int) {
	pods, _ := w.pods.List(labels.Everything()) // a cache does not fail
	for _, p := range pods {
		if isReady(p) {
			n++
		}
	}
	return n
}
