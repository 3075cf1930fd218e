// Command autohealing shows what a control plane does for a living: it keeps ten
// replicas of a web server alive while pods are deleted, a new version is rolled out
// and the store's leader is killed. There is no kube-apiserver: a controller and a
// kubelet, written on client-go as any others, talk to three members of kvd.
//
//	cluster.go     three kvd processes: start, kill, who leads
//	connect.go     a client that goes to another member when one is gone
//	loop.go        what every controller is made of
//	controller.go  Deployment -> ReplicaSets -> pods
//	rollout.go     how many pods the old and the new version may have
//	kubelet.go     says that pods run, and that deleted ones are gone
//	trouble.go     breaks things
//	status.go      a line a second
//
// Read controller.go first. Nothing in it knows of failures: it compares what is
// with what should be, acts, and is woken again. That is what heals.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	corelisters "k8s.io/client-go/listers/core/v1"
)

func main() {
	kvd := flag.String("kvd", "bin/kvd", "the kvd program")
	pause := flag.Duration("pause", 6*time.Second, "between two troubles")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := show(ctx, *kvd, *pause); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "autohealing:", err)
		os.Exit(1)
	}
	fmt.Println("stopped; nothing is left behind")
}

// show runs everything until ctx ends.
func show(ctx context.Context, kvd string, pause time.Duration) error {
	w, err := begin(ctx, kvd)
	if err != nil {
		return err
	}
	defer w.end()
	fmt.Printf("Three members of kvd serve the Kubernetes API. In another terminal, if you have kubectl:\n  kubectl --server http://%s get pods -w\n\n", w.cluster.members[0].api)
	ctx, cancel := context.WithCancel(ctx)
	var printing sync.WaitGroup
	defer printing.Wait()
	defer cancel()
	printing.Go(func() { w.printStatus(ctx) })
	return w.makeTrouble(ctx, pause)
}

// world is all that runs here.
type world struct {
	cluster *cluster
	client  *connection
	pods    corelisters.PodLister
	news    news // what was just broken
	stop    context.CancelFunc
	tasks   sync.WaitGroup
}

// begin starts the store, then the controller and the kubelet, and asks for ten
// replicas.
func begin(ctx context.Context, kvd string) (*world, error) {
	fmt.Println("starting three members of kvd ...")
	c, err := startCluster(ctx, kvd)
	if err != nil {
		return nil, err
	}
	w := &world{cluster: c}
	ctx, w.stop = context.WithCancel(ctx)
	if w.client, err = connect(c.apis()); err != nil {
		w.end()
		return nil, err
	}
	controller, kubelet := newController(w.client), newKubelet(w.client)
	w.pods = kubelet.pods
	w.tasks.Go(func() { controller.run(ctx, controller.reconcile) })
	w.tasks.Go(func() { kubelet.run(ctx, kubelet.sync) })
	if err := w.deploy(ctx); err != nil {
		w.end()
		return nil, err
	}
	return w, nil
}

// end stops everything, in the opposite order.
func (w *world) end() {
	w.stop()
	w.tasks.Wait()
	w.cluster.stop()
}
