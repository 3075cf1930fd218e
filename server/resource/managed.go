package resource

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/merge"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Who wrote which field: metadata.managedFields, by which server-side apply finds
// conflicts and what its caller no longer wants.

// manager is one who writes fields, in one way.
type manager struct {
	name, operation, version, sub string
}

const (
	operationApply  = "Apply"
	operationUpdate = "Update"
)

// ownership is managedFields, decoded.
type ownership struct {
	sets   fieldpath.ManagedFields
	who    map[string]manager
	times  map[string]string
	fields map[string]any // what sets says, as it was read
}

func (m manager) key() string {
	return strings.Join([]string{m.name, m.operation, m.version, m.sub}, "\x00")
}

// String is the manager as conflicts name it.
func (m manager) String() string {
	s := fmt.Sprintf("%q", m.name)
	if m.sub != "" {
		s += fmt.Sprintf(" with subresource %q", m.sub)
	}
	if m.operation == operationUpdate {
		s += " using " + m.version
	}
	return s
}

func decodeOwnership(o object.Object) (*ownership, error) {
	out := &ownership{fieldpath.ManagedFields{}, map[string]manager{}, map[string]string{}, map[string]any{}}
	for _, v := range object.List(o, "metadata", "managedFields") {
		e, _ := v.(object.Object)
		m := manager{object.String(e, "manager"), object.String(e, "operation"), object.String(e, "apiVersion"), object.String(e, "subresource")}
		if m.operation != operationApply && m.operation != operationUpdate {
			continue // an empty entry resets what was there
		}
		set := &fieldpath.Set{}
		if err := set.FromJSON(bytes.NewReader(object.AppendValue(nil, e["fieldsV1"]))); err != nil {
			return nil, badRequest("metadata.managedFields: %v", err)
		}
		out.sets[m.key()] = fieldpath.NewVersionedSet(set, fieldpath.APIVersion(m.version), m.operation == operationApply)
		out.who[m.key()], out.times[m.key()], out.fields[m.key()] = m, object.String(e, "time"), e["fieldsV1"]
	}
	return out, nil
}

// ownedByServer are fields that belong to nobody.
var ownedByServer = fieldpath.NewSet(
	fieldpath.MakePathOrDie("apiVersion"), fieldpath.MakePathOrDie("kind"), fieldpath.MakePathOrDie("metadata"),
	fieldpath.MakePathOrDie("metadata", "name"), fieldpath.MakePathOrDie("metadata", "namespace"), fieldpath.MakePathOrDie("metadata", "creationTimestamp"),
	fieldpath.MakePathOrDie("metadata", "selfLink"), fieldpath.MakePathOrDie("metadata", "uid"), fieldpath.MakePathOrDie("metadata", "generation"),
	fieldpath.MakePathOrDie("metadata", "managedFields"), fieldpath.MakePathOrDie("metadata", "resourceVersion"),
	fieldpath.MakePathOrDie("metadata", "deletionTimestamp"), fieldpath.MakePathOrDie("metadata", "deletionGracePeriodSeconds"),
)

// encode changes o: its managedFields say what sets says. An entry whose fields
// are those of before keeps its time, so that a write of nothing changes nothing.
func (w *ownership) encode(o object.Object, sets fieldpath.ManagedFields, by manager, now time.Time) error {
	w.who[by.key()] = by
	keys := make([]string, 0, len(sets))
	for key := range sets {
		keys = append(keys, key)
	}
	entries := make([]object.Object, 0, len(keys))
	for _, key := range keys {
		set := sets[key].Set().Difference(ownedByServer)
		if set.Empty() {
			continue
		}
		at, fields, err := w.entry(key, set)
		if err != nil {
			return err
		}
		at = cmp.Or(at, timestamp(now))
		m := w.who[key]
		e := object.Object{"manager": m.name, "operation": m.operation, "apiVersion": m.version, "time": at, "fieldsType": "FieldsV1", "fieldsV1": fields}
		if m.sub != "" {
			e["subresource"] = m.sub
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b object.Object) int {
		text := func(o object.Object, name string) string { s, _ := o[name].(string); return s }
		return cmp.Or(cmp.Compare(text(a, "operation"), text(b, "operation")), cmp.Compare(text(a, "time"), text(b, "time")), cmp.Compare(text(a, "manager"), text(b, "manager")),
			cmp.Compare(text(a, "apiVersion"), text(b, "apiVersion")), cmp.Compare(text(a, "subresource"), text(b, "subresource")))
	})
	list := make([]any, len(entries))
	for i, e := range entries {
		list[i] = e
	}
	object.Set(o, list, "metadata", "managedFields")
	tidyMeta(object.Map(o, "metadata"))
	return nil
}

// entry is what is said of a manager that owns set: a time only if it owned that before.
func (w *ownership) entry(key string, set *fieldpath.Set) (at string, fields any, err error) {
	if before := w.sets[key]; before != nil {
		if fields = w.fields[key]; fields != nil && before.Set().Equals(set) {
			return w.times[key], fields, nil
		}
		if before.Set().Difference(ownedByServer).Equals(set) {
			at = w.times[key]
		}
	}
	b, err := set.ToJSON()
	if err != nil {
		return "", nil, err
	}
	fields, _, err = object.Decode(b)
	return at, fields, err
}

// typedValue is an object for the merge library, without managedFields.
func typedValue(k *Kind, o object.Object) (*typed.TypedValue, error) {
	o = maps.Clone(o)
	if meta := maps.Clone(object.Map(o, "metadata")); meta != nil {
		delete(meta, "managedFields")
		o["metadata"] = meta
	}
	p, _ := plain(o).(object.Object)
	return k.mergeType().FromUnstructured(p, typed.AllowDuplicates)
}

// versions converts between those of a kind; fields of a version that is gone are forgotten.
type versions struct{ kind *Kind }

// Convert implements merge.Converter.
func (s versions) Convert(o *typed.TypedValue, v fieldpath.APIVersion) (*typed.TypedValue, error) {
	if v == fieldpath.APIVersion(s.kind.APIVersion()) && s.kind.siblings == nil {
		return o, nil
	}
	have, _ := o.AsValue().Unstructured().(object.Object)
	from, to := s.kind.sibling(object.String(have, "apiVersion")), s.kind.sibling(string(v))
	if from == nil || to == nil {
		return nil, errNoVersion
	}
	if from == to {
		return o, nil
	}
	converted, err := typedValue(to, to.fromStored(from.intoStored(object.Copy(have))))
	if err != nil {
		return nil, errNoVersion // it cannot say what this object has
	}
	return converted, nil
}

// IsMissingVersionError implements merge.Converter.
func (versions) IsMissingVersionError(err error) bool { return err == errNoVersion }

var errNoVersion = fmt.Errorf("no such version")

func updater(k *Kind) *merge.Updater {
	return (&merge.UpdaterBuilder{Converter: versions{k}}).BuildUpdater()
}

// noteUpdate changes next: by now owns what differs from old (nil: everything).
func noteUpdate(k *Kind, next, old object.Object, by manager, now time.Time) error {
	base := next
	if object.Get(next, "metadata", "managedFields") == nil && old != nil {
		base = old
	}
	w, err := decodeOwnership(base)
	if err != nil {
		return err
	}
	if old == nil {
		old = k.blank()
	}
	was, is := old, next
	if !k.Custom && k.siblings == nil {
		was, is = unequal(old, next)
	}
	before, err := typedValue(k, was)
	if err != nil {
		return err
	}
	after, err := typedValue(k, is)
	if err != nil {
		return err
	}
	_, sets, err := updater(k).Update(before, after, fieldpath.APIVersion(k.APIVersion()), w.sets.Copy(), by.key())
	if err != nil {
		return err
	}
	w.fold(sets, by, timestamp(now))
	return w.encode(next, sets, by, now)
}

// unequal leaves out what two objects both have, such as the spec when a status is written:
// it belongs to whom it belonged, and to compare it field by field costs most of all.
// The owners of a kind whose schema may change are looked at whole.
func unequal(a, b object.Object) (object.Object, object.Object) {
	a, b = maps.Clone(a), maps.Clone(b)
	for name, v := range a {
		if w, both := b[name]; both && name != "metadata" && name != "kind" && name != "apiVersion" && object.Equal(v, w) {
			delete(a, name)
			delete(b, name)
		}
	}
	return a, b
}

// maxUpdaters bounds the entries of managers that update; older ones are folded
// into one of ancientManager for each version, as in a kube-apiserver.
const (
	maxUpdaters    = 10
	ancientManager = "ancient-changes"
)

// fold changes sets: the oldest entries of updates are one, if there are too many.
// The entry of newest is of now.
func (w *ownership) fold(sets fieldpath.ManagedFields, newest manager, now string) {
	var updaters []string
	for key, set := range sets {
		if !set.Applied() {
			updaters = append(updaters, key)
		}
	}
	when := func(key string) string {
		if key == newest.key() {
			return now
		}
		return w.times[key]
	}
	slices.SortFunc(updaters, func(a, b string) int { return cmp.Or(cmp.Compare(when(a), when(b)), cmp.Compare(a, b)) })
	first := map[fieldpath.APIVersion]string{}
	left := len(updaters)
	for _, key := range updaters {
		if left <= maxUpdaters {
			return
		}
		set := sets[key]
		before, seen := first[set.APIVersion()]
		if !seen {
			first[set.APIVersion()] = key
			continue
		}
		into := manager{ancientManager, operationUpdate, string(set.APIVersion()), ""}
		bucket := into.key()
		if sets[bucket] == nil {
			sets[bucket] = sets[before]
			delete(sets, before)
		}
		sets[bucket] = fieldpath.NewVersionedSet(set.Set().Union(sets[bucket].Set()), set.APIVersion(), false)
		delete(sets, key)
		left--
		w.who[bucket], w.times[bucket], w.sets[bucket], w.fields[bucket] = into, when(key), sets[bucket], nil
	}
}

// applyConfig returns old (nil: there is none) with a configuration applied by a manager.
func applyConfig(k *Kind, old, config object.Object, by manager, force bool, now time.Time) (object.Object, error) {
	live := old
	if live == nil {
		live = object.Copy(k.blank())
	}
	w, err := decodeOwnership(live)
	if err != nil {
		return nil, err
	}
	if old != nil && len(w.sets) == 0 {
		// Written before anybody kept account: it belongs to one who is gone.
		first := manager{"before-first-apply", operationUpdate, k.APIVersion(), ""}
		value, err := typedValue(k, live)
		if err != nil {
			return nil, err
		}
		set, err := value.ToFieldSet()
		if err != nil {
			return nil, err
		}
		w.sets[first.key()], w.who[first.key()] = fieldpath.NewVersionedSet(set, fieldpath.APIVersion(first.version), false), first
	}
	liveValue, err := typedValue(k, live)
	if err != nil {
		return nil, err
	}
	configValue, err := typedValue(k, config)
	if err != nil {
		return nil, err // it was read as one before
	}
	apply := func(force bool) (*typed.TypedValue, fieldpath.ManagedFields, error) {
		return updater(k).Apply(liveValue, configValue, fieldpath.APIVersion(k.APIVersion()), w.sets.Copy(), by.key(), force)
	}
	merged, sets, err := apply(force)
	if conflicts, ok := err.(merge.Conflicts); ok && by.name == upgrader {
		if err = stillConflicts(k, live, liveValue, conflicts); err == nil {
			merged, sets, err = apply(true)
		}
	}
	if err != nil {
		return nil, w.refusal(k, object.String(config, "metadata", "name"), err)
	}
	next := object.Copy(live)
	if merged != nil {
		next, _ = merged.AsValue().Unstructured().(object.Object)
		next = object.Copy(next)
	}
	return next, w.encode(next, sets, by, now)
}

// upgrader is the manager that goes on with what kubectl applied on the client.
const upgrader = "kubectl"

// lastApplied is the annotation in which kubectl keeps what it applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// stillConflicts are the conflicts about fields that kubectl has not applied before,
// on the client, as they are; nil: there are none.
func stillConflicts(k *Kind, live object.Object, liveValue *typed.TypedValue, conflicts merge.Conflicts) error {
	before, _, err := object.Decode([]byte(object.String(live, "metadata", "annotations", lastApplied)))
	if err != nil {
		return conflicts
	}
	value, err := typedValue(k, before)
	if err != nil {
		return conflicts
	}
	own, err := value.ToFieldSet()
	if err != nil {
		return conflicts
	}
	differs, err := value.Compare(liveValue)
	if err != nil {
		return conflicts
	}
	own = own.Difference(differs.Modified).Difference(differs.Added).Difference(differs.Removed)
	var left merge.Conflicts
	for _, c := range conflicts {
		if !own.Has(c.Path) {
			left = append(left, c)
		}
	}
	if left == nil {
		return nil
	}
	return left
}

// refusal is what a conflict tells the client.
func (w *ownership) refusal(k *Kind, name string, err error) error {
	conflicts, ok := err.(merge.Conflicts)
	if !ok {
		return badRequest("%v", err)
	}
	f := k.about(name, 409, "Conflict", "")
	f.Kind, f.Group, f.Name = "", "", ""
	paths := map[string][]string{}
	for _, c := range conflicts {
		who := w.who[c.Manager].String()
		f.Causes = append(f.Causes, Cause{"FieldManagerConflict", "conflict with " + who, c.Path.String()})
		paths[who] = append(paths[who], "- "+c.Path.String())
	}
	if len(conflicts) == 1 {
		f.Message = "Apply failed with 1 conflict: " + f.Causes[0].Message + ": " + f.Causes[0].Field
		return f
	}
	var lines []string
	for who, fields := range object.Sorted(paths) {
		lines = append(append(lines, "conflicts with "+who+":"), fields...)
	}
	f.Message = fmt.Sprintf("Apply failed with %d conflicts: %s", len(conflicts), strings.Join(lines, "\n"))
	return f
}
