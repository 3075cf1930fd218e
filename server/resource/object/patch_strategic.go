package object

import (
	"fmt"
	"slices"
	"strings"
)

// A strategic merge patch is a merge patch that knows which lists are sets: those
// of objects with a merge key (containers by name), and some of plain values
// (finalizers). Directives in the patch say more:
//
//	$patch: replace | delete | merge      this object, or this element of a list
//	$retainKeys: [a, b]                   what else the object has goes
//	$deleteFromPrimitiveList/f: [x]       x leaves the list f
//	$setElementOrder/f: [...]             how the elements of f are to stand
const (
	directivePatch   = "$patch"
	directiveRetain  = "$retainKeys"
	prefixFromList   = "$deleteFromPrimitiveList/"
	prefixOrder      = "$setElementOrder/"
	directiveReplace = "replace"
	directiveDelete  = "delete"
	directiveMerge   = "merge"
)

// Rules says how the fields of an object merge.
type Rules interface {
	// Field describes the field of that name; ok is false when it is not known,
	// and then objects merge and lists are replaced.
	Field(name string) (Rule, bool)
}

// Rule says how one field merges.
type Rule struct {
	MergeList  bool   // the list is a set: of objects by Key, or of plain values
	Key        string // of a list of objects
	ReplaceMap bool   // the object is replaced as a whole
	Below      Rules  // of the object, or of the list's elements; nil: not known
}

type noRules struct{}

func (noRules) Field(string) (Rule, bool) { return Rule{}, false }

// MergeStrategic returns o with a strategic merge patch applied. The error is the
// client's: a directive that cannot be followed.
func MergeStrategic(o, patch Object, rules Rules) (Object, error) {
	if rules == nil {
		rules = noRules{}
	}
	switch directive, given := patch[directivePatch]; directive {
	case directiveReplace:
		return without(patch, directivePatch), nil
	case directiveDelete:
		return Object{}, nil
	case directiveMerge:
	default:
		if given {
			return nil, fmt.Errorf("unknown patch type: %v", directive)
		}
	}
	out := make(Object, len(o)+len(patch))
	for name, v := range o {
		out[name] = v
	}
	if keep, ok := patch[directiveRetain].([]any); ok {
		for name := range o {
			if !slices.ContainsFunc(keep, func(v any) bool { return v == name }) {
				delete(out, name)
			}
		}
	}
	for name, v := range patch {
		if field, ok := strings.CutPrefix(name, prefixFromList); ok {
			gone, _ := v.([]any)
			if list, ok := out[field].([]any); ok {
				out[field] = slices.DeleteFunc(slices.Clone(list), func(e any) bool { return contains(gone, e) })
			}
		}
	}
	for _, name := range sortedNames(patch) {
		if strings.HasPrefix(name, "$") {
			continue
		}
		if err := mergeField(out, name, patch[name], rules); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, orderLists(out, o, patch, rules)
}

// mergeField changes out: its field name becomes what the patch makes of it.
func mergeField(out Object, name string, patch any, rules Rules) error {
	rule, _ := rules.Field(name)
	switch p := patch.(type) {
	case nil:
		delete(out, name)
	case Object:
		have, _ := out[name].(Object)
		if rule.ReplaceMap && p[directivePatch] == nil {
			out[name] = p
			return nil
		}
		if p[directivePatch] == directiveDelete {
			delete(out, name)
			return nil
		}
		merged, err := MergeStrategic(have, p, rule.Below)
		if err != nil {
			return err
		}
		out[name] = merged
	case []any:
		if !rule.MergeList {
			out[name] = p
			return nil
		}
		have, _ := out[name].([]any)
		merged, err := mergeList(have, p, rule)
		if err != nil {
			return err
		}
		// Without another order it is the patch's: what is new comes before what the patch
		// does not name.
		out[name] = ordered(merged, p, have, rule.Key)
	default:
		out[name] = p
	}
	return nil
}

func mergeList(have, patch []any, rule Rule) ([]any, error) {
	out := slices.Clone(have)
	if rule.Key == "" {
		for _, e := range patch {
			if !contains(out, e) {
				out = append(out, e)
			}
		}
		return out, nil
	}
	for _, e := range patch {
		if p, ok := e.(Object); ok && p[directivePatch] == directiveReplace {
			rest := slices.DeleteFunc(slices.Clone(patch), func(e any) bool {
				p, ok := e.(Object)
				return ok && p[directivePatch] != nil
			})
			return rest, nil
		}
	}
	for _, e := range patch {
		p, ok := e.(Object)
		if !ok {
			return nil, fmt.Errorf("an element is no object, but the list is merged by %q", rule.Key)
		}
		key, ok := p[rule.Key]
		if !ok {
			return nil, fmt.Errorf("map: %s does not contain declared merge key: %s", AppendValue(nil, p), rule.Key)
		}
		at := slices.IndexFunc(out, func(e any) bool { return keyOf(e, rule.Key) != nil && Equal(keyOf(e, rule.Key), key) })
		if p[directivePatch] == directiveDelete {
			if at >= 0 {
				out = slices.Delete(out, at, at+1)
			}
			continue
		}
		var old Object
		if at >= 0 {
			old, _ = out[at].(Object)
		}
		merged, err := MergeStrategic(old, p, rule.Below)
		if err != nil {
			return nil, err
		}
		delete(merged, directivePatch)
		if at >= 0 {
			out[at] = merged
		} else {
			out = append(out, merged)
		}
	}
	return out, nil
}

// orderLists changes out: lists whose order the patch gives stand in it.
// Elements that the patch does not name keep their place among their
// neighbours of before.
func orderLists(out, before, patch Object, rules Rules) error {
	for name, v := range patch {
		field, ok := strings.CutPrefix(name, prefixOrder)
		if !ok {
			continue
		}
		order, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s is no list", name)
		}
		list, ok := out[field].([]any)
		if !ok {
			continue
		}
		rule, _ := rules.Field(field)
		old, _ := before[field].([]any)
		out[field] = ordered(list, order, old, rule.Key)
	}
	return nil
}

func ordered(list, order, before []any, key string) []any {
	index := func(in []any, e any) int {
		return slices.IndexFunc(in, func(o any) bool { return Equal(keyOf(o, key), keyOf(e, key)) })
	}
	var named, others []any
	for _, o := range order {
		if i := index(list, o); i >= 0 {
			named = append(named, list[i])
		}
	}
	for _, e := range list {
		if index(order, e) < 0 {
			others = append(others, e)
		}
	}
	out := make([]any, 0, len(list))
	for len(named) > 0 && len(others) > 0 {
		if n, o := index(before, named[0]), index(before, others[0]); n < 0 || o < 0 || n < o {
			out, named = append(out, named[0]), named[1:]
		} else {
			out, others = append(out, others[0]), others[1:]
		}
	}
	return append(append(out, named...), others...)
}

// keyOf is what identifies an element: its field key, or the element itself.
func keyOf(e any, key string) any {
	if o, ok := e.(Object); ok && key != "" {
		return o[key]
	}
	return e
}

func contains(list []any, v any) bool {
	return slices.ContainsFunc(list, func(e any) bool { return Equal(e, v) })
}

func without(o Object, name string) Object {
	out := make(Object, len(o))
	for n, v := range o {
		if n != name {
			out[n] = v
		}
	}
	return out
}
