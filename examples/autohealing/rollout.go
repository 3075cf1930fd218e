package main

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// surge is how many pods a rollout may have beyond the replicas, and unavailable how
// many may be missing meanwhile.
const (
	surge       = 2
	unavailable = 1
)

// rollout decides how many pods each ReplicaSet should have, by name. The sum never
// exceeds replicas + surge; and old pods go only while replicas - unavailable others are
// ready. When there are no old ones, the current one simply has all.
//
// It compares numbers and remembers nothing, so it can be asked at any time.
func rollout(replicas int32, sets []appsv1.ReplicaSet, pods map[string]*corev1.Pod, current string) map[string]int32 {
	want := map[string]int32{}
	old, ready := int32(0), int32(0)
	for i := range sets {
		rs := &sets[i]
		if rs.Labels[labelHash] != current {
			old += *rs.Spec.Replicas
		}
		for slot := range *rs.Spec.Replicas { // what has no slot is about to go
			if p := pods[podName(rs, slot)]; p != nil && isReady(p) {
				ready++
			}
		}
	}
	mayGo := max(ready-(replicas-unavailable), 0)
	for i := range sets {
		rs := &sets[i]
		if rs.Labels[labelHash] == current {
			want[rs.Name] = max(min(replicas, replicas+surge-old), 0)
			continue
		}
		leave := min(*rs.Spec.Replicas, mayGo)
		want[rs.Name] = *rs.Spec.Replicas - leave
		mayGo -= leave
	}
	return want
}

// isReady reports whether a pod serves.
func isReady(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil
}
