package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// labelHash tells the pods of one version from those of another.
	labelHash = "pod-template-hash"
	// maxSlots bounds the replicas of a ReplicaSet.
	maxSlots = 100
)

// podName is the name of the pod in a slot.
func podName(rs *appsv1.ReplicaSet, slot int32) string { return fmt.Sprintf("%s-%d", rs.Name, slot) }

// controller makes Deployments true: a ReplicaSet for each version, and pods for each
// ReplicaSet. Informers tell it that something changed; whatever it was, the Deployment
// that it belongs to is compared with what there is.
//
// It needs no memory of what it did. A pod's name is its slot: replica 3 of web-7f is
// web-7f-3. When it is not known whether a create went through, because the leader died
// in between, it is simply done again: the store takes a name once.
type controller struct {
	loop
	client *connection
}

func newController(client *connection) *controller {
	c := &controller{loop: newLoop(client), client: client}
	wake := cache.ResourceEventHandlerFuncs{AddFunc: c.wake, UpdateFunc: func(_, now any) { c.wake(now) }, DeleteFunc: c.wake}
	for _, i := range []cache.SharedIndexInformer{
		c.informers.Apps().V1().Deployments().Informer(), c.informers.Core().V1().Pods().Informer(),
	} {
		i.AddEventHandler(wake)
	}
	return c
}

// wake queues the Deployment of an object: all that belongs to it has its app label.
func (c *controller) wake(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if o, ok := obj.(metav1.Object); ok && o.GetLabels()["app"] != "" {
		c.queue.Add(o.GetNamespace() + "/" + o.GetLabels()["app"])
	}
}

// reconcile does what is missing for a Deployment. What it decides with it reads from
// the server, not from the informers: a cache can lag behind what this worker wrote a
// moment ago, and then one more pod would seem to be allowed. A list is cheap here.
func (c *controller) reconcile(ctx context.Context, namespace, name string) error {
	d, err := c.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // what it owned is garbage; the layer collects it
	}
	if err != nil {
		return err
	}
	mine := metav1.ListOptions{LabelSelector: "app=" + name}
	sets, err := c.client.AppsV1().ReplicaSets(namespace).List(ctx, mine)
	if err != nil {
		return err
	}
	current := hashOf(&d.Spec.Template)
	if !slices.ContainsFunc(sets.Items, func(rs appsv1.ReplicaSet) bool { return rs.Labels[labelHash] == current }) {
		made, err := c.client.AppsV1().ReplicaSets(namespace).Create(ctx, replicaSet(d, current), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		sets.Items = append(sets.Items, *made)
	}
	list, err := c.client.CoreV1().Pods(namespace).List(ctx, mine)
	if err != nil {
		return err
	}
	pods := map[string]*corev1.Pod{}
	for i := range list.Items {
		pods[list.Items[i].Name] = &list.Items[i]
	}
	// In this order, and no further than the first error: new pods come when old ones
	// have gone.
	want := rollout(*d.Spec.Replicas, sets.Items, pods, current)
	for _, step := range []func(context.Context, *appsv1.ReplicaSet, map[string]*corev1.Pod) error{
		func(ctx context.Context, rs *appsv1.ReplicaSet, _ map[string]*corev1.Pod) error {
			return c.scale(ctx, rs, want[rs.Name])
		},
		c.prune, c.fill,
	} {
		for i := range sets.Items {
			if err := step(ctx, &sets.Items[i], pods); err != nil {
				return err
			}
		}
	}
	return c.report(ctx, d, pods, current)
}

// scale sets how many pods a ReplicaSet should have.
func (c *controller) scale(ctx context.Context, rs *appsv1.ReplicaSet, want int32) error {
	if *rs.Spec.Replicas == want {
		return nil
	}
	rs.Spec.Replicas = &want
	_, err := c.client.AppsV1().ReplicaSets(rs.Namespace).Update(ctx, rs, metav1.UpdateOptions{})
	return err
}

// prune deletes pods beyond the last slot.
func (c *controller) prune(ctx context.Context, rs *appsv1.ReplicaSet, pods map[string]*corev1.Pod) error {
	for slot := *rs.Spec.Replicas; slot < maxSlots; slot++ {
		p := pods[podName(rs, slot)]
		if p == nil || p.DeletionTimestamp != nil {
			continue
		}
		this := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))}
		if err := settled(c.client.CoreV1().Pods(rs.Namespace).Delete(ctx, p.Name, this)); err != nil {
			return err
		}
	}
	return nil
}

// fill creates pods in slots that are empty. A pod that is on its way out still has its
// name: its slot is filled when it is gone.
func (c *controller) fill(ctx context.Context, rs *appsv1.ReplicaSet, pods map[string]*corev1.Pod) error {
	for slot := range *rs.Spec.Replicas {
		name := podName(rs, slot)
		if pods[name] != nil {
			continue
		}
		_, err := c.client.CoreV1().Pods(rs.Namespace).Create(ctx, podOf(rs, name), metav1.CreateOptions{})
		if settled(err) != nil {
			return err
		}
	}
	return nil
}

// report writes what is into the Deployment's status, for people and kubectl.
func (c *controller) report(ctx context.Context, d *appsv1.Deployment, pods map[string]*corev1.Pod, current string) error {
	now := appsv1.DeploymentStatus{ObservedGeneration: d.Generation}
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		now.Replicas++
		if p.Labels[labelHash] == current {
			now.UpdatedReplicas++
		}
		if isReady(p) {
			now.ReadyReplicas++
			now.AvailableReplicas++
		}
	}
	d.Status = now // the layer makes no revision of what changes nothing
	_, err := c.client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	return settled(err)
}

// hashOf names a version of a Deployment's pods.
func hashOf(t *corev1.PodTemplateSpec) string {
	b, _ := json.Marshal(t) // a Go struct of Kubernetes' always can be
	h := fnv.New32a()
	h.Write(b)
	return fmt.Sprintf("%08x", h.Sum32())
}

func replicaSet(d *appsv1.Deployment, hash string) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Name: d.Name + "-" + hash, Namespace: d.Namespace, Labels: map[string]string{"app": d.Name, labelHash: hash},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
	}}
	rs.Spec.Replicas = new(int32)
	rs.Spec.Template = *d.Spec.Template.DeepCopy()
	rs.Spec.Template.Labels = rs.Labels
	rs.Spec.Selector = &metav1.LabelSelector{MatchLabels: rs.Labels}
	return rs
}

func podOf(rs *appsv1.ReplicaSet, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: rs.Namespace, Labels: rs.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: *rs.Spec.Template.Spec.DeepCopy(),
	}
}
