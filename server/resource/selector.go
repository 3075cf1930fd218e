package resource

import (
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/keelson-io/keelson/server/resource/object"
)

// labelSelector reads a selector as objects have it (matchLabels and
// matchExpressions). None selects nothing, an empty one everything.
func labelSelector(o object.Object) (labels.Selector, error) {
	if o == nil {
		return labels.Nothing(), nil
	}
	sel := labels.NewSelector()
	for name, v := range object.Map(o, "matchLabels") {
		s, _ := v.(string)
		r, err := labels.NewRequirement(name, selection.Equals, []string{s})
		if err != nil {
			return nil, err
		}
		sel = sel.Add(*r)
	}
	for _, v := range object.List(o, "matchExpressions") {
		e, _ := v.(object.Object)
		op := selection.Operator(strings.ToLower(object.String(e, "operator")))
		if op == "doesnotexist" {
			op = selection.DoesNotExist
		}
		r, err := labels.NewRequirement(object.String(e, "key"), op, object.Strings(e, "values"))
		if err != nil {
			return nil, err
		}
		sel = sel.Add(*r)
	}
	return sel, nil
}

// selectorText is a selector in the form of queries. A plain map of labels (of a
// ReplicationController) counts as matchLabels.
func selectorText(o object.Object) string {
	if o == nil {
		return ""
	}
	if o["matchLabels"] == nil && o["matchExpressions"] == nil && len(o) > 0 {
		o = object.Object{"matchLabels": o}
	}
	sel, err := labelSelector(o)
	if err != nil {
		return ""
	}
	return sel.String()
}
