package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// TestHeals does what the program shows, and lets the store's history tell whether it
// went well.
func TestHeals(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	kvd := filepath.Join(t.TempDir(), "kvd")
	build := exec.CommandContext(ctx, "go", "build", "-o", kvd, "./cmd/kvd")
	build.Dir = filepath.Join("..", "..") // the module above
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w, err := begin(ctx, kvd)
	if err != nil {
		t.Fatal(err)
	}
	defer w.end()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := w.atRest(ctx, t, "web:1")

	dead, err := w.killLeader(ctx)
	check(err)
	_, err = w.cluster.awaitLeader(ctx, dead)
	check(err)
	if again := w.atRest(ctx, t, "web:1"); len(common(first, again)) != replicas {
		t.Errorf("the leader's death has cost pods: %v became %v", first, again)
	}
	check(w.deletePods(ctx, 4)) // with two members
	if again := w.differsFrom(ctx, t, first, "web:1"); len(common(first, again)) != replicas-4 {
		t.Errorf("4 pods were deleted, and %v became %v", first, again)
	}
	check(w.cluster.start(dead))

	check(w.rollOut(ctx, 2))
	dead, err = w.killLeader(ctx) // amid the rollout
	check(err)
	w.atRest(ctx, t, "web:2")
	check(w.cluster.start(dead))
	w.judge(ctx, t)
}

// atRest waits until the pods are exactly the replicas, all of them ready and of one
// version, and returns who they are.
func (w *world) atRest(ctx context.Context, t *testing.T, image string) map[types.UID]bool {
	t.Helper()
	return w.differsFrom(ctx, t, nil, image)
}

// differsFrom is atRest with other pods than before.
func (w *world) differsFrom(ctx context.Context, t *testing.T, before map[types.UID]bool, image string) map[types.UID]bool {
	t.Helper()
	for {
		list, err := w.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err == nil {
			good := map[types.UID]bool{}
			for i := range list.Items {
				if p := &list.Items[i]; isReady(p) && p.Spec.Containers[0].Image == image {
					good[p.UID] = true
				}
			}
			if len(good) == replicas && len(list.Items) == replicas && (before == nil || len(common(before, good)) < replicas) {
				return good
			}
		}
		if !sleep(ctx, 50*time.Millisecond) {
			t.Fatalf("no rest with %s: %v, %+v", image, err, list)
		}
	}
}

func common(a, b map[types.UID]bool) (out []types.UID) {
	for uid := range a {
		if b[uid] {
			out = append(out, uid)
		}
	}
	return out
}

// judge reads every change of a pod since the beginning from the store's history. At
// each of them, there are no more pods that are to live than a rollout may have.
func (w *world) judge(ctx context.Context, t *testing.T) {
	t.Helper()
	now := w.atRest(ctx, t, "web:2")
	for seconds := int64(1); ; seconds *= 2 { // at rest a watch that had time enough has told all
		h, err := w.readHistory(ctx, seconds)
		if err != nil {
			t.Fatal(err)
		}
		if len(common(h.live(), now)) < replicas || len(h.pods) > replicas {
			if seconds < 64 {
				continue
			}
			t.Errorf("%v are there, and history ends with %v", now, h.live())
		}
		if h.most > replicas+surge {
			t.Errorf("there were %d pods at a time, %d were allowed", h.most, replicas+surge)
		}
		t.Logf("%d pods were made; there were never more than %d at a time", h.made, h.most)
		return
	}
}

// history is what a watch from the beginning told.
type history struct {
	pods       map[string]types.UID // that are to live, by name
	made, most int
}

func (h *history) live() map[types.UID]bool {
	out := map[types.UID]bool{}
	for _, uid := range h.pods {
		out[uid] = true
	}
	return out
}

func (w *world) readHistory(ctx context.Context, seconds int64) (*history, error) {
	stream, err := w.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: "1", TimeoutSeconds: &seconds})
	if err != nil {
		return nil, err
	}
	defer stream.Stop()
	h := &history{pods: map[string]types.UID{}}
	for ev := range stream.ResultChan() {
		p, ok := ev.Object.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("history ends with %+v", ev)
		}
		if ev.Type == watch.Added {
			h.made++
		}
		if ev.Type == watch.Deleted || p.DeletionTimestamp != nil {
			delete(h.pods, p.Name)
		} else {
			h.pods[p.Name] = p.UID
		}
		h.most = max(h.most, len(h.pods))
	}
	return h, nil
}
