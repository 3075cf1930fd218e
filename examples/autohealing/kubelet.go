package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// kubelet plays the agents of all nodes. It runs nothing; it says that it does.
type kubelet struct {
	loop
	client *connection
	pods   corelisters.PodLister
}

// starting is how long a container takes to start.
const starting = 700 * time.Millisecond

func newKubelet(client *connection) *kubelet {
	k := &kubelet{loop: newLoop(client), client: client}
	pods := k.informers.Core().V1().Pods()
	k.pods = pods.Lister()
	see := func(obj any) {
		if p, ok := obj.(*corev1.Pod); ok {
			k.queue.AddAfter(p.Namespace+"/"+p.Name, starting)
		}
	}
	pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, now any) { see(now) }})
	return k
}

// sync makes a pod's state true: a new one runs, a deleted one ends.
func (k *kubelet) sync(ctx context.Context, namespace, name string) error {
	p, err := k.pods.Pods(namespace).Get(name)
	if err != nil {
		return nil // it is gone
	}
	switch pods := k.client.CoreV1().Pods(namespace); {
	case p.DeletionTimestamp != nil:
		now := metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
		return settled(pods.Delete(ctx, name, now))
	case p.Status.Phase != corev1.PodRunning:
		p = p.DeepCopy() // what a cache holds is everybody's
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		_, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
		return settled(err)
	}
	return nil
}
