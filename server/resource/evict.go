package resource

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/resource/object"
)

// evict answers POST of a pod's eviction: it is deleted if its disruption budget
// has room. What it takes of the budget and the delete are one transaction, which
// compares both: two evictions cannot take the same room, and an eviction that
// fails takes none.
func (c *call) evict() error {
	s, dry, err := c.received()
	if err != nil {
		return err
	}
	if object.String(s.object, "metadata", "name") != c.Name {
		return badRequest("name in URL does not match name in Eviction object")
	}
	opts, err := c.deleteOptionsOf(object.Map(s.object, "deleteOptions"))
	if err != nil {
		return err
	}
	l, k := c.layer, c.kind
	_, err = l.write(c.ctx, k, k.key(c.Namespace, c.Name), dry || opts.dry, func(cur *current) (*step, error) {
		if cur == nil {
			return nil, notFound(k, c.Name)
		}
		pod, err := cur.decoded(k)
		if err != nil {
			return nil, err
		}
		setCondition(pod, object.Object{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
			"message": "Eviction API: evicting", "lastProbeTime": nil}, timestamp(l.clock.Now()))
		st, err := l.removing(k, cur, pod, opts)
		if err != nil {
			return nil, err
		}
		return st, l.takeFromBudget(st, c.Namespace, pod)
	})
	if err != nil {
		return err
	}
	return c.send(http.StatusCreated, object.Encode(success(http.StatusCreated)))
}

// takeFromBudget makes a step that evicts a pod take one disruption from the
// budget that covers the pod, or refuses. The status of budgets is their controller's:
// what is taken is noted in disruptedPods until the controller has seen the pod go.
func (l *Layer) takeFromBudget(st *step, namespace string, pod object.Object) error {
	k := l.catalog.Load().named("policy/v1", "PodDisruptionBudget")
	if k == nil || goesAnyway(pod) {
		return nil
	}
	tx, err := l.store.Read(0)
	if err != nil {
		return err
	}
	defer tx.Release()
	budgets, err := covering(tx, k, namespace, pod)
	if err != nil || len(budgets) == 0 {
		return err
	}
	if len(budgets) > 1 {
		return &Failure{Code: http.StatusInternalServerError,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}
	}
	b := budgets[0]
	if !isReady(pod) && sparesUnready(b.object) {
		st.guards = append(st.guards, guard{b.key, b.rev})
		return nil
	}
	if err := refuseDisruption(b.object); err != nil {
		return err
	}
	now := timestamp(l.clock.Now())
	allowed, _ := object.Int(b.object, "status", "disruptionsAllowed")
	object.Set(b.object, allowed-1, "status", "disruptionsAllowed")
	object.Set(b.object, now, "status", "disruptedPods", object.String(pod, "metadata", "name"))
	if allowed == 1 {
		setCondition(b.object, object.Object{"type": conditionAllowed, "status": "False", "reason": "InsufficientPods", "message": "",
			"observedGeneration": object.Get(b.object, "status", "observedGeneration")}, now)
	}
	st.rewrite(k, b)
	return nil
}

const conditionAllowed = "DisruptionAllowed"

// covering are the budgets whose selectors match a pod.
func covering(tx *mvcc.ReadTxn, k *Kind, namespace string, pod object.Object) (out []storedObject, err error) {
	all, err := storedIn(tx, k, namespace)
	set := labels.Set{}
	for name, v := range object.Map(pod, "metadata", "labels") {
		set[name], _ = v.(string)
	}
	for _, b := range all {
		if sel, err := labelSelector(object.Map(b.object, "spec", "selector")); err == nil && sel.Matches(set) {
			out = append(out, b)
		}
	}
	return out, err
}

// goesAnyway reports whether a pod's end disrupts nobody: it does not run yet, or
// no more, or is on its way.
func goesAnyway(pod object.Object) bool {
	switch object.String(pod, "status", "phase") {
	case "Succeeded", "Failed", "Pending":
		return true
	}
	return object.String(pod, "metadata", "deletionTimestamp") != ""
}

func isReady(pod object.Object) bool {
	return object.String(condition(pod, "Ready"), "status") == "True"
}

// sparesUnready reports whether a budget lets pods go that are not ready: by its
// policy, or because there are enough others.
func sparesUnready(budget object.Object) bool {
	healthy, _ := object.Int(budget, "status", "currentHealthy")
	desired, _ := object.Int(budget, "status", "desiredHealthy")
	return object.String(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow" || desired > 0 && healthy >= desired
}

// maxDisrupted bounds the pods whose end a budget's controller has not seen yet.
const maxDisrupted = 2000

// refuseDisruption says why a budget allows no disruption now; nil: it does.
func refuseDisruption(budget object.Object) error {
	name := object.String(budget, "metadata", "name")
	number := func(path ...string) int64 { n, _ := object.Int(budget, path...); return n }
	refusal := func(retry int, why string) *Failure {
		return &Failure{Code: http.StatusTooManyRequests, Reason: "TooManyRequests", RetryAfter: retry,
			Message: "Cannot evict pod as it would violate the pod's disruption budget.",
			Causes:  []Cause{{Reason: "DisruptionBudget", Message: "The disruption budget " + name + " " + why}}}
	}
	owner := &Kind{Group: "policy", Plural: "poddisruptionbudget"}
	switch allowed := number("status", "disruptionsAllowed"); {
	case number("status", "observedGeneration") < number("metadata", "generation"):
		return refusal(10, "is still being processed by the server.")
	case allowed < 0:
		return forbidden(owner, name, "pdb disruptions allowed is negative")
	case len(object.Map(budget, "status", "disruptedPods")) > maxDisrupted:
		return forbidden(owner, name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
	case allowed > 0:
		return nil
	}
	healthy, desired := number("status", "currentHealthy"), number("status", "desiredHealthy")
	have := condition(budget, conditionAllowed)
	reason, text := object.String(have, "reason"), object.String(have, "message")
	explained := object.String(have, "status") == "False" && text != ""
	const now = "does not allow evicting pods currently"
	switch {
	case explained && reason == "SyncFailed":
		return refusal(0, now+" because it failed sync: "+text)
	case healthy <= desired:
		return refusal(0, fmt.Sprintf("needs %d healthy pods and has %d currently", desired, healthy))
	case explained:
		return refusal(0, now+" ("+reason+"): "+text)
	}
	return refusal(0, now)
}
