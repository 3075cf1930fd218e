package control

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A small controller of Deployments and ReplicaSets, and a kubelet that is a scheduler,
// too, as they are written on client-go: they act on what their informers hold,
// which may be old, and again whenever that changes. Names and victims follow from
// what is held, so that acting twice on the same does nothing the second time.

// loop runs once after each change of what its informers hold, and now and then.
type loop struct {
	client  kubernetes.Interface
	factory informers.SharedInformerFactory
	kick    chan struct{}
	errs    struct {
		sync.Mutex
		count int
		last  error
	}
}

// retryEvery is when a round is made although nothing changed: the last one may
// have failed.
const retryEvery = 250 * time.Millisecond

func newLoop(cfg *rest.Config) (*loop, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(Namespace))
	return &loop{client: client, factory: f, kick: make(chan struct{}, 1)}, nil
}

func (l *loop) run(ctx context.Context, once func(context.Context) error, watched ...cache.SharedIndexInformer) error {
	wake := func(any) {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	for _, i := range watched {
		h := cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake}
		if _, err := i.AddEventHandler(h); err != nil {
			return err
		}
	}
	l.factory.Start(ctx.Done())
	defer l.factory.Shutdown()
	l.factory.WaitForCacheSync(ctx.Done())
	for ctx.Err() == nil {
		select {
		case <-l.kick:
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return nil
		}
		round, cancel := context.WithTimeout(ctx, callLimit)
		err := once(round)
		cancel()
		if err != nil && ctx.Err() == nil {
			l.errs.Lock()
			l.errs.count, l.errs.last = l.errs.count+1, err
			l.errs.Unlock()
		}
	}
	return nil
}

// expected reports whether an error is a part of acting on what may be old.
func harmless(err error) bool {
	return err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}

// RunDeployments is the controller, until ctx ends.
func RunDeployments(ctx context.Context, cfg *rest.Config) error {
	l, err := newLoop(cfg)
	if err != nil {
		return err
	}
	apps, core := l.factory.Apps().V1(), l.factory.Core().V1()
	return l.run(ctx, l.deploy, apps.Deployments().Informer(), apps.ReplicaSets().Informer(), core.Pods().Informer())
}

func (l *loop) deploy(ctx context.Context) error {
	apps := l.factory.Apps().V1()
	all, err := apps.Deployments().Lister().List(k8slabels.Everything())
	if err != nil {
		return err
	}
	sets, err := apps.ReplicaSets().Lister().List(k8slabels.Everything())
	if err != nil {
		return err
	}
	for _, d := range all {
		own := slices.DeleteFunc(slices.Clone(sets), func(s *appsv1.ReplicaSet) bool { return !metav1.IsControlledBy(s, d) })
		if err := l.roll(ctx, d, own); !harmless(err) {
			return err
		}
	}
	for _, s := range sets {
		if err := l.fill(ctx, s); !harmless(err) {
			return err
		}
	}
	return nil
}

// roll brings a Deployment's pods to its template: as many new ones as may be too
// many, as few old ones as must be there.
func (l *loop) roll(ctx context.Context, d *appsv1.Deployment, sets []*appsv1.ReplicaSet) error {
	name := d.Name + "-" + templateHash(d)
	at := slices.IndexFunc(sets, func(s *appsv1.ReplicaSet) bool { return s.Name == name })
	if at < 0 {
		_, err := l.client.AppsV1().ReplicaSets(d.Namespace).Create(ctx, replicaSetOf(d, name), metav1.CreateOptions{})
		return err
	}
	want, total, available := *d.Spec.Replicas, int32(0), int32(0)
	for _, s := range sets {
		total += max(*s.Spec.Replicas, s.Status.Replicas)
		available += min(s.Status.AvailableReplicas, *s.Spec.Replicas)
	}
	newest := sets[at]
	surge, missing := d.Spec.Strategy.RollingUpdate.MaxSurge.IntVal, d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal
	if more := min(want+surge-total, want-*newest.Spec.Replicas); more > 0 {
		return l.scale(ctx, newest, *newest.Spec.Replicas+more)
	}
	spare := available - (want - missing)
	for _, s := range sets {
		if less := min(spare, *s.Spec.Replicas); s != newest && less > 0 {
			return l.scale(ctx, s, *s.Spec.Replicas-less)
		}
	}
	return nil
}

func (l *loop) scale(ctx context.Context, s *appsv1.ReplicaSet, n int32) error {
	s = s.DeepCopy()
	s.Spec.Replicas = &n
	_, err := l.client.AppsV1().ReplicaSets(s.Namespace).Update(ctx, s, metav1.UpdateOptions{})
	return err
}

func templateHash(d *appsv1.Deployment) string {
	h := fnv.New32a()
	h.Write([]byte(d.Spec.Template.Spec.Containers[0].Image))
	return fmt.Sprintf("%x", h.Sum32())
}

func replicaSetOf(d *appsv1.Deployment, name string) *appsv1.ReplicaSet {
	labels := maps.Clone(d.Spec.Template.Labels)
	labels["set"] = name
	template := *d.Spec.Template.DeepCopy()
	template.Labels = labels
	none := int32(0)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: d.Namespace, Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}
}

// fill makes the pods that a ReplicaSet lacks and deletes those that it has too
// many: the last by name, which are the same when it looks again.
func (l *loop) fill(ctx context.Context, s *appsv1.ReplicaSet) error {
	listed, err := l.factory.Core().V1().Pods().Lister().Pods(s.Namespace).List(k8slabels.Everything())
	if err != nil {
		return err
	}
	own := slices.DeleteFunc(slices.Clone(listed), func(p *corev1.Pod) bool { return !metav1.IsControlledBy(p, s) || p.DeletionTimestamp != nil })
	slices.SortFunc(own, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	api := l.client.CoreV1().Pods(s.Namespace)
	for i := 0; len(own) < int(*s.Spec.Replicas); i++ {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%03d", s.Name, i), Labels: s.Spec.Template.Labels}, Spec: s.Spec.Template.Spec}
		if slices.ContainsFunc(listed, func(o *corev1.Pod) bool { return o.Name == p.Name }) {
			continue
		}
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(s, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		if _, err := api.Create(ctx, p, metav1.CreateOptions{}); !harmless(err) {
			return err
		}
		own = append(own, p)
	}
	for _, p := range own[*s.Spec.Replicas:] {
		uid := p.UID
		if err := api.Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); !harmless(err) {
			return err
		}
	}
	own = own[:*s.Spec.Replicas]
	ready := int32(len(slices.DeleteFunc(slices.Clone(own), func(p *corev1.Pod) bool { return !isReady(p) })))
	if s.Status.Replicas == int32(len(own)) && s.Status.AvailableReplicas == ready {
		return nil
	}
	s = s.DeepCopy()
	s.Status.Replicas, s.Status.ReadyReplicas, s.Status.AvailableReplicas = int32(len(own)), ready, ready
	_, err = l.client.AppsV1().ReplicaSets(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
	return err
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// RunKubelet binds pods to nodes, says that they run and are ready, and lets go of
// those that are to end, until ctx ends.
func RunKubelet(ctx context.Context, cfg *rest.Config) error {
	l, err := newLoop(cfg)
	if err != nil {
		return err
	}
	return l.run(ctx, l.attend, l.factory.Core().V1().Pods().Informer())
}

func (l *loop) attend(ctx context.Context) error {
	all, err := l.factory.Core().V1().Pods().Lister().List(k8slabels.Everything())
	if err != nil {
		return err
	}
	for i, p := range all {
		api := l.client.CoreV1().Pods(p.Namespace)
		switch {
		case p.DeletionTimestamp != nil:
			now, uid := int64(0), p.UID
			err = api.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}})
		case p.Spec.NodeName == "":
			err = api.Bind(ctx, &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
				Target:     corev1.ObjectReference{Kind: "Node", Name: nodes[i%len(nodes)]},
			}, metav1.CreateOptions{})
		case !isReady(p):
			p = p.DeepCopy()
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			_, err = api.UpdateStatus(ctx, p, metav1.UpdateOptions{})
		default:
			continue
		}
		if !harmless(err) {
			return err
		}
	}
	return nil
}
