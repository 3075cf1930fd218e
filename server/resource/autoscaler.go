package resource

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// Autoscalers are stored and served as autoscaling/v2 has them, and served as v1 has them,
// too: it knows the CPU as the only metric. What else there is its clients see, and send
// back, as annotations with JSON in them, in names of v1 or of a kube-apiserver's source.
const (
	metricsNote    = "autoscaling.alpha.kubernetes.io/metrics"
	behaviorNote   = "autoscaling.alpha.kubernetes.io/behavior"
	statusesNote   = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsNote = "autoscaling.alpha.kubernetes.io/conditions"
)

var (
	autoscalerSpecNotes   = []string{metricsNote, behaviorNote}
	autoscalerStatusNotes = []string{statusesNote, conditionsNote}
)

// olderAutoscaler is the kind of v1, made from that of v2.
func olderAutoscaler(k *Kind) *Kind {
	out := &Kind{Group: k.Group, Version: "v1", Name: k.Name, Plural: k.Plural, Singular: k.Singular, ListName: k.ListName,
		Short: k.Short, Categories: k.Categories, Namespaced: true, Prefix: k.Prefix, Status: true,
		Stored: k.APIVersion(), SpecNotes: autoscalerSpecNotes, StatusNotes: autoscalerStatusNotes}
	m := kinds.Lookup(out.APIVersion(), k.Name)
	out.Rules, out.Layout = messageRules{m}, m
	out.From = func(o object.Object) object.Object { return out.settle(autoscalerFrom(object.Copy(o))) }
	out.Into = func(o object.Object) object.Object { return k.settle(autoscalerInto(object.Copy(o), k.Layout)) }
	return out
}

// autoscalerHead is within how many bytes a stored autoscaler has named its version.
const autoscalerHead = 80

// isOlderAutoscaler reports whether a stored value may be an autoscaler of v1, as older
// kube-apiservers store them.
func isOlderAutoscaler(value []byte) bool {
	return bytes.Contains(value[:min(len(value), autoscalerHead)], []byte(`"autoscaling/v1"`))
}

// modernAutoscaler makes an autoscaler of v2 of one of v1.
func modernAutoscaler(value []byte) ([]byte, error) {
	o, _, err := object.Decode(value)
	if err != nil {
		return nil, err
	}
	for _, k := range builtinKinds() {
		if k.Into != nil && o["apiVersion"] == k.APIVersion() && o["kind"] == k.Name {
			return object.Encode(k.Into(o)), nil
		}
	}
	return value, nil
}

// settle makes a converted object one of the kind. What its type cannot have was stored by
// somebody else, and stays as it is.
func (k *Kind) settle(o object.Object) object.Object {
	o["apiVersion"] = k.APIVersion()
	_ = k.conform(o)
	return o
}

// metricSources are the fields of metrics that are wanted: the names of v1 and v2. A field of
// v1 with a mark is always there.
var metricSources = map[string]string{
	"resource":          "name=name targetAverageUtilization=target.averageUtilization targetAverageValue=target.averageValue",
	"containerResource": "name=name container=container targetAverageUtilization=target.averageUtilization targetAverageValue=target.averageValue",
	"pods":              "metricName=metric.name selector=metric.selector targetAverageValue!=target.averageValue",
	"object":            "target=describedObject metricName=metric.name selector=metric.selector targetValue!=target.value averageValue=target.averageValue",
	"external":          "metricName=metric.name metricSelector=metric.selector targetValue=target.value targetAverageValue=target.averageValue",
}

// metricStatuses are those of metrics as they are.
var metricStatuses = map[string]string{
	"resource":          "name=name currentAverageUtilization=current.averageUtilization currentAverageValue!=current.averageValue",
	"containerResource": "name=name container=container currentAverageUtilization=current.averageUtilization currentAverageValue!=current.averageValue",
	"pods":              "metricName=metric.name selector=metric.selector currentAverageValue!=current.averageValue",
	"object":            "target=describedObject metricName=metric.name selector=metric.selector currentValue!=current.value averageValue=current.averageValue",
	"external":          "metricName=metric.name metricSelector=metric.selector currentValue!=current.value currentAverageValue=current.averageValue",
}

// renameMetric makes a metric of one version of that of the other.
func renameMetric(m object.Object, names map[string]string, older bool) object.Object {
	out := object.Object{"type": m["type"]}
	for source, fields := range names {
		from := object.Map(m, source)
		if from == nil {
			continue
		}
		to := object.Object{}
		for _, field := range strings.Fields(fields) {
			of, at, _ := strings.Cut(field, "=")
			of, always := strings.CutSuffix(of, "!")
			if older {
				of, at = at, of
			}
			v := object.Get(from, strings.Split(of, ".")...)
			if v == nil && always {
				v = "0"
			}
			if v != nil {
				object.Set(to, v, strings.Split(at, ".")...)
			}
		}
		out[source] = to
	}
	return out
}

// renameMetrics is renameMetric for a list; nil when something else is in it.
func renameMetrics(list []any, names map[string]string, older bool) []any {
	out := make([]any, len(list))
	for i, v := range list {
		m, ok := v.(object.Object)
		if !ok {
			return nil
		}
		out[i] = renameMetric(m, names, older)
	}
	return out
}

// cpuPercent is the part of a CPU that a metric of v2 is about; nil: it is about something else.
func cpuPercent(v any, values string) any {
	m, _ := v.(object.Object)
	if m["type"] != "Resource" || object.String(m, "resource", "name") != "cpu" {
		return nil
	}
	return object.Get(m, "resource", values, "averageUtilization")
}

func cpuMetric(values string, of object.Object) any {
	return object.Object{"type": "Resource", "resource": object.Object{"name": "cpu", values: of}}
}

// autoscalerFrom makes an autoscaler of v1 of one of v2, which it uses up.
func autoscalerFrom(o object.Object) object.Object {
	dropNotes(o)
	note := func(name string, v any) {
		object.Set(o, string(object.AppendValue(nil, v)), "metadata", "annotations", name)
	}
	var others []any
	for _, v := range object.List(o, "spec", "metrics") {
		if percent := cpuPercent(v, "target"); percent == nil {
			others = append(others, v)
		} else {
			object.Default(o, percent, "spec", "targetCPUUtilizationPercentage")
		}
	}
	if others != nil {
		note(metricsNote, renameMetrics(others, metricSources, true))
	}
	if b := object.Map(o, "spec", "behavior"); b != nil {
		object.Set(o, behaviorText(b), "metadata", "annotations", behaviorNote)
	}
	statuses := object.List(o, "status", "currentMetrics")
	for _, v := range statuses {
		if percent := cpuPercent(v, "current"); percent != nil {
			object.Set(o, percent, "status", "currentCPUUtilizationPercentage")
		}
	}
	if len(statuses) > 0 {
		note(statusesNote, renameMetrics(statuses, metricStatuses, true))
	}
	if conditions := object.List(o, "status", "conditions"); len(conditions) > 0 {
		note(conditionsNote, conditions)
	}
	for _, path := range [][]string{{"spec", "metrics"}, {"spec", "behavior"}, {"status", "currentMetrics"}, {"status", "conditions"}} {
		object.Remove(o, path...)
	}
	return o
}

// autoscalerInto makes an autoscaler of v2, whose layout that is, of one of v1, which it uses up.
// Annotations that say nothing that v2 could have say nothing.
func autoscalerInto(o object.Object, layout *kinds.Message) object.Object {
	spec, status := layout.Field("spec").Message, layout.Field("status").Message
	metrics := renameMetrics(noted(o, metricsNote), metricSources, false)
	for _, v := range metrics {
		chooseTarget(v.(object.Object))
	}
	if !fit(spec.Field("metrics").Message, metrics) {
		metrics = nil
	}
	if percent := object.Get(o, "spec", "targetCPUUtilizationPercentage"); percent != nil {
		metrics = append(metrics, cpuMetric("target", object.Object{"type": "Utilization", "averageUtilization": percent}))
	}
	if len(metrics) > 0 {
		object.Set(o, metrics, "spec", "metrics")
	}
	if b := notedBehavior(o); len(b) > 0 && fit(spec.Field("behavior").Message, []any{b}) {
		object.Set(o, b, "spec", "behavior")
	}
	statuses := renameMetrics(noted(o, statusesNote), metricStatuses, false)
	if percent := object.Get(o, "status", "currentCPUUtilizationPercentage"); len(statuses) == 0 && percent != nil {
		statuses = []any{cpuMetric("current", object.Object{"averageUtilization": percent})}
	}
	if len(statuses) > 0 && fit(status.Field("currentMetrics").Message, statuses) {
		object.Set(o, statuses, "status", "currentMetrics")
	}
	if c := noted(o, conditionsNote); len(c) > 0 && fit(status.Field("conditions").Message, c) {
		object.Set(o, c, "status", "conditions")
	}
	object.Remove(o, "spec", "targetCPUUtilizationPercentage")
	object.Remove(o, "status", "currentCPUUtilizationPercentage")
	dropNotes(o)
	return o
}

// chooseTarget changes a metric of v2 that was one of v1: it says which of its values counts.
func chooseTarget(m object.Object) {
	for source := range metricSources {
		if object.Map(m, source) == nil {
			continue
		}
		value, average := object.Get(m, source, "target", "value"), object.Get(m, source, "target", "averageValue")
		if source == "object" && average != nil && value == "0" {
			object.Remove(m, source, "target", "value") // v1 cannot leave it out
			value = nil
		}
		kind := "AverageValue"
		switch {
		case object.Get(m, source, "target", "averageUtilization") != nil:
			kind = "Utilization"
		case value != nil && (source == "external" || average == nil):
			kind = "Value"
		}
		object.Set(m, kind, source, "target", "type")
	}
}

// fit reports whether all of a list can be messages of a type.
func fit(m *kinds.Message, list []any) bool {
	return !slices.ContainsFunc(list, func(v any) bool {
		o, ok := v.(object.Object)
		return !ok || kinds.Conform(m, o) != nil
	})
}

// noted is the list in an annotation; nil when there is none.
func noted(o object.Object, name string) []any {
	return object.List(notedValue(o, name), "it")
}

func notedValue(o object.Object, name string) object.Object {
	text := object.String(o, "metadata", "annotations", name)
	if !json.Valid([]byte(text)) {
		return nil
	}
	v, _, err := object.Decode([]byte(`{"it":` + text + `}`))
	if err != nil {
		return nil
	}
	return v
}

// behaviorText is a behavior as a kube-apiserver writes it into the annotation.
func behaviorText(o object.Object) string {
	type rules struct {
		StabilizationWindowSeconds *int64
		SelectPolicy               *string
		Policies                   []struct {
			Type                 string
			Value, PeriodSeconds int64
		}
		Tolerance *string
	}
	var b struct{ ScaleUp, ScaleDown *rules }
	_ = json.Unmarshal(object.AppendValue(nil, o), &b) // what does not fit was stored by somebody else
	text, _ := json.Marshal(b)                         // of such fields it cannot fail
	return string(text)
}

// notedBehavior reads it again.
func notedBehavior(o object.Object) object.Object {
	b, _ := uncapitalized(notedValue(o, behaviorNote)["it"]).(object.Object)
	return b
}

// uncapitalized begins names with small letters and leaves out what is null.
func uncapitalized(v any) any {
	switch v := v.(type) {
	case object.Object:
		out := object.Object{}
		for name, e := range v {
			if e != nil && name != "" {
				out[strings.ToLower(name[:1])+name[1:]] = uncapitalized(e)
			}
		}
		return out
	case []any:
		for i := range v {
			v[i] = uncapitalized(v[i])
		}
	}
	return v
}

// dropNotes changes an autoscaler: no annotation says what fields do.
func dropNotes(o object.Object) {
	annotations := object.Map(o, "metadata", "annotations")
	for _, name := range slices.Concat(autoscalerSpecNotes, autoscalerStatusNotes) {
		delete(annotations, name)
	}
	if len(annotations) == 0 {
		object.Remove(o, "metadata", "annotations")
	}
}

// defaultAutoscaler changes an autoscaler: what absence means is written out.
func defaultAutoscaler(k *Kind, o object.Object) {
	if k.Into != nil {
		stored := k.Into(o)
		defaultAutoscaler(k.siblings[0], stored)
		clear(o)
		maps.Copy(o, k.From(stored))
		return
	}
	dropNotes(o)
	object.Default(o, int64(1), "spec", "minReplicas")
	if spec := object.Map(o, "spec"); spec != nil && len(object.List(spec, "metrics")) == 0 {
		spec["metrics"] = []any{cpuMetric("target", object.Object{"type": "Utilization", "averageUtilization": int64(80)})}
	}
	behavior := object.Map(o, "spec", "behavior")
	if behavior == nil {
		return
	}
	all := object.Object{"type": "Percent", "value": int64(100), "periodSeconds": int64(15)}
	for direction, policies := range map[string][]any{
		"scaleUp":   {object.Object{"type": "Pods", "value": int64(4), "periodSeconds": int64(15)}, all},
		"scaleDown": {object.Copy(all)},
	} {
		if behavior[direction] == nil {
			behavior[direction] = object.Object{}
		}
		object.Default(behavior, "Max", direction, "selectPolicy")
		object.Default(behavior, policies, direction, "policies")
	}
	object.Default(behavior, int64(0), "scaleUp", "stabilizationWindowSeconds")
}
