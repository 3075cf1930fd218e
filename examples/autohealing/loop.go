package main

import (
	"context"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/util/workqueue"
)

// loop is what every controller is made of: informers put the names of what they saw
// into a queue, and one worker makes one after the other true. A name stands in the
// queue once, however often it was put there.
type loop struct {
	informers informers.SharedInformerFactory
	queue     workqueue.TypedRateLimitingInterface[string] // namespace/name
}

func newLoop(client *connection) loop {
	return loop{
		informers: informers.NewSharedInformerFactory(client, 0),
		queue:     workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](10*time.Millisecond, time.Second)),
	}
}

// run works until ctx ends. What fails is tried again, ever more rarely.
func (l *loop) run(ctx context.Context, sync func(ctx context.Context, namespace, name string) error) {
	l.informers.Start(ctx.Done())
	defer l.informers.Shutdown()
	defer context.AfterFunc(ctx, l.queue.ShutDown)()
	for {
		key, over := l.queue.Get()
		if over {
			return
		}
		namespace, name, _ := strings.Cut(key, "/")
		if err := sync(ctx, namespace, name); err != nil {
			l.queue.AddRateLimited(key)
		} else {
			l.queue.Forget(key)
		}
		l.queue.Done(key)
	}
}

// settled forgets errors that say that somebody else was faster: the informers tell
// what has come of it.
func settled(err error) error {
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
