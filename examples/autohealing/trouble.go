package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// What is deployed.
const (
	namespace = "default"
	app       = "web"
	replicas  = 10
)

// deploy asks for ten replicas. The store may still be choosing its first leader, so it
// asks again until it is told that they are there.
func (w *world) deploy(ctx context.Context) error {
	want := int32(replicas)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: app, Labels: map[string]string{"app": app}}}
	d.Spec.Replicas = &want
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	d.Spec.Template.Labels = map[string]string{"app": app}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: app, Image: "web:1"}}
	return insist(ctx, func() error {
		_, err := w.client.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{})
		return settled(err)
	})
}

// deletePods deletes some of the pods that are there.
func (w *world) deletePods(ctx context.Context, n int) error {
	pods, _ := w.pods.List(labels.Everything()) // a cache does not fail
	rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	for _, p := range pods[:min(n, len(pods))] {
		w.news.tell("deleted " + p.Name)
		err := insist(ctx, func() error {
			return settled(w.client.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{}))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// killLeader kills the store's leader and returns it; the others choose a new one.
func (w *world) killLeader(ctx context.Context) (*member, error) {
	m, err := w.cluster.awaitLeader(ctx, nil)
	if err != nil {
		return nil, err
	}
	w.news.tell("KILLED " + m.name + ", the leader")
	m.kill()
	return m, nil
}

// rollOut asks for another version.
func (w *world) rollOut(ctx context.Context, version int) error {
	w.news.tell(fmt.Sprintf("rolling out web:%d", version))
	patch := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"containers":[{"name":%q,"image":"web:%d"}]}}}}`, app, version)
	return insist(ctx, func() error {
		_, err := w.client.AppsV1().Deployments(namespace).Patch(ctx, app, "application/strategic-merge-patch+json", patch, metav1.PatchOptions{})
		return err
	})
}

// makeTrouble breaks one thing after the other until ctx ends.
func (w *world) makeTrouble(ctx context.Context, pause time.Duration) error {
	for version := 2; ; version++ {
		var dead *member
		kill := func() (err error) { dead, err = w.killLeader(ctx); return err }
		restart := func() error { w.news.tell("started " + dead.name + " again"); return w.cluster.start(dead) }
		for _, trouble := range []struct {
			after time.Duration
			do    func() error
		}{
			{pause, func() error { return w.deletePods(ctx, 3) }},
			{pause, kill},
			{pause / 4, func() error { return w.deletePods(ctx, 5) }}, // two members are enough
			{pause, restart},
			{pause, func() error { return w.rollOut(ctx, version) }},
			{pause / 10, kill}, // amid the rollout
			{pause, restart},
		} {
			if !sleep(ctx, trouble.after) {
				return nil
			}
			if err := trouble.do(); err != nil {
				return err
			}
		}
	}
}

// insist repeats what fails because the store has no leader at the moment.
func insist(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || ctx.Err() != nil || !sleep(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// news is what happened since somebody last looked.
type news struct {
	sync.Mutex
	list []string
}

func (n *news) tell(s string) {
	n.Lock()
	defer n.Unlock()
	n.list = append(n.list, s)
}

func (n *news) take() (all []string) {
	n.Lock()
	defer n.Unlock()
	all, n.list = n.list, nil
	return all
}
