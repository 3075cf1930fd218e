package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

const (
	rolloutPods        = 10
	rolloutSurge       = 2
	rolloutUnavailable = 1
)

// TestRollout: a rolling update while the store's leader, and then the member that the
// controllers talk to, are killed. At no revision are there more pods than may be,
// or fewer that are ready than must be; each is bound once.
func TestRollout(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w, err := StartWorld(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r := &rolloutRun{World: w, t: t}
	r.begin(ctx)
	first := r.Truth.Rev() // from here on enough pods are ready
	for i := range 2 {
		r.update(ctx, fmt.Sprintf("demo.io/web:%d", i+2))
		r.await(ctx, "some pods are new", func(ready, all int) bool { return all > 0 && ready > 0 })
		victim := r.front.Serving()
		if i == 0 {
			if victim, err = r.Leader(ctx); err != nil {
				t.Fatal(err)
			}
		}
		r.Kill(victim)
		r.await(ctx, "all pods are new", func(ready, all int) bool { return ready == rolloutPods && all == rolloutPods })
		if err := r.Restart(ctx, victim); err != nil {
			t.Fatal(err)
		}
	}
	r.judge(first)
}

type rolloutRun struct {
	*World
	t      *testing.T
	front  *Front
	client kubernetes.Interface
	image  string
}

func (r *rolloutRun) begin(ctx context.Context) {
	r.t.Helper()
	var url string
	var err error
	if r.front, url, err = r.Front(1, false); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.front.Close)
	if r.client, err = kubernetes.NewForConfig(r.ConfigOf(url)); err != nil {
		r.t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 2)
	go func() { ended <- RunDeployments(running, r.ConfigOf(url)) }()
	go func() { ended <- RunKubelet(running, r.ConfigOf(url)) }()
	r.t.Cleanup(func() {
		stop()
		for range cap(ended) {
			if err := <-ended; err != nil {
				r.t.Error(err)
			}
		}
	})
	n, surge, missing := int32(rolloutPods), intstr.FromInt32(rolloutSurge), intstr.FromInt32(rolloutUnavailable)
	labels := map[string]string{"app": "web"}
	r.image = "demo.io/web:1"
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &missing}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: r.image}}}},
	}}
	if _, err := r.client.AppsV1().Deployments(Namespace).Create(ctx, d, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	r.await(ctx, "the first pods are ready", func(ready, all int) bool { return ready == rolloutPods && all == rolloutPods })
}

func (r *rolloutRun) update(ctx context.Context, image string) {
	r.t.Helper()
	r.image = image
	patch := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":%q}]}}}}`, image)
	if err := Until(ctx, func() error {
		_, err := r.client.AppsV1().Deployments(Namespace).Patch(ctx, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
}

// await waits until how many pods of the newest image are ready, and how many pods
// there are, fulfil a condition, and the history knows.
func (r *rolloutRun) await(ctx context.Context, what string, cond func(ready, all int) bool) {
	r.t.Helper()
	var rev int64
	err := Until(ctx, func() error {
		list, err := r.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		ready := 0
		for i := range list.Items {
			if p := &list.Items[i]; p.Spec.Containers[0].Image == r.image && isReady(p) && p.DeletionTimestamp == nil {
				ready++
			}
		}
		rev = number(list.ResourceVersion)
		if !cond(ready, len(list.Items)) {
			return fmt.Errorf("not in time: %s; %d of %d", what, ready, len(list.Items))
		}
		return nil
	})
	if err == nil {
		err = r.Truth.Until(ctx, rev)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// judge goes through the history of pods, revision by revision.
func (r *rolloutRun) judge(from int64) {
	r.t.Helper()
	pods := map[string]*state{}
	least, most, revisions := rolloutPods, 0, 0
	for _, e := range r.Truth.All() {
		if !strings.HasPrefix(e.key, registry+"pods/") {
			continue
		}
		if e.old != nil && e.new != nil && e.old.Spec.NodeName != "" && e.old.Spec.NodeName != e.new.Spec.NodeName {
			r.t.Errorf("%s was bound to %s and then, at %d, to %s", e.key, e.old.Spec.NodeName, e.rev, e.new.Spec.NodeName)
		}
		if delete(pods, e.key); e.new != nil && e.new.Metadata.DeletionTimestamp == "" {
			pods[e.key] = e.new
		}
		if e.rev <= from {
			continue
		}
		revisions++
		ready := 0
		for _, p := range pods {
			if slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool { return c.Type == "Ready" && c.Status == "True" }) {
				ready++
			}
		}
		least, most = min(least, ready), max(most, len(pods))
		if ready < rolloutPods-rolloutUnavailable || len(pods) > rolloutPods+rolloutSurge {
			r.t.Errorf("at %d there are %d pods, %d ready", e.rev, len(pods), ready)
		}
	}
	if revisions == 0 || most <= rolloutPods {
		r.t.Errorf("%d revisions, at most %d pods: nothing was rolled out", revisions, most)
	}
	row(r.t, "rollout", "2", fmt.Sprint(revisions), fmt.Sprintf("%d (%d)", least, rolloutPods-rolloutUnavailable), fmt.Sprintf("%d (%d)", most, rolloutPods+rolloutSurge))
}
