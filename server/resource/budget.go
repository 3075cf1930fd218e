package resource

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/keelson-io/keelson/server/resource/object"
)

// takeFromBudget takes one disruption from each PodDisruptionBudget that covers
// the pod, or refuses. The status of budgets is their controller's: what is taken is noted
// in disruptedPods until the controller has seen the pod go.
func (l *Layer) takeFromBudget(ctx context.Context, namespace string, pod *current) error {
	budgets := l.catalog.Load().named("policy/v1", "PodDisruptionBudget")
	if budgets == nil {
		return nil
	}
	s, err := l.snapshot(ctx, budgets, "")
	if err != nil {
		return err
	}
	meta, err := object.ParseMeta(pod.json)
	if err != nil {
		return err
	}
	for _, e := range s.within(&Selection{kind: budgets, namespace: namespace}) {
		b, _, err := object.Decode(e.json)
		if err != nil {
			return err
		}
		sel, err := labelSelector(object.Map(b, "spec", "selector"))
		if err != nil || !sel.Matches(labels.Set(meta.Labels)) {
			continue
		}
		if err := l.takeOne(ctx, budgets, namespace, e.meta.Name, meta.Name); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layer) takeOne(ctx context.Context, budgets *Kind, namespace, budget, pod string) error {
	_, err := l.write(ctx, budgets, budgets.key(namespace, budget), false, func(cur *current) (*step, error) {
		if cur == nil {
			return nil, notFound(budgets, budget)
		}
		b, err := cur.decoded(budgets)
		if err != nil {
			return nil, err
		}
		allowed, _ := object.Int(b, "status", "disruptionsAllowed")
		if allowed <= 0 {
			return nil, &Failure{Code: http.StatusTooManyRequests, Reason: "TooManyRequests",
				Message: "Cannot evict pod as it would violate the pod's disruption budget.",
				Causes:  []Cause{{Reason: "DisruptionBudget", Message: "The disruption budget " + budget + " does not allow evicting pods currently because it has 0 disruptions allowed."}}}
		}
		object.Set(b, allowed-1, "status", "disruptionsAllowed")
		object.Set(b, timestamp(l.clock.Now()), "status", "disruptedPods", pod)
		return &step{store: b, lease: cur.lease}, nil
	})
	return err
}
