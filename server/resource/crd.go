package resource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/api/jsonpath"
	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// Kinds that are defined at run time. A CustomResourceDefinition makes a kind of
// each version that it serves; nothing else is kept of it.

const definitionGroup = "apiextensions.k8s.io"

// finalizerInstances holds a definition until its objects are gone.
const finalizerInstances = "customresourcecleanup.apiextensions.k8s.io"

// definedKinds makes the kinds of a definition.
func definedKinds(crd object.Object) ([]*Kind, error) {
	spec := object.Map(crd, "spec")
	group, plural := object.String(spec, "group"), object.String(spec, "names", "plural")
	var stored string
	for _, v := range object.List(spec, "versions") {
		if o, ok := v.(object.Object); ok && o["storage"] == true {
			stored = apiVersion(group, object.String(o, "name"))
		}
	}
	var out []*Kind
	for _, v := range object.List(spec, "versions") {
		o, _ := v.(object.Object)
		if o["served"] != true {
			continue
		}
		k := &Kind{
			Group: group, Version: object.String(o, "name"), Name: object.String(spec, "names", "kind"), Plural: plural,
			Singular: object.String(spec, "names", "singular"), ListName: object.String(spec, "names", "listKind"),
			Short: object.Strings(spec, "names", "shortNames"), Categories: object.Strings(spec, "names", "categories"),
			Namespaced: object.String(spec, "scope") == "Namespaced", Prefix: registryRoot + group + "/" + plural + "/",
			Custom: true, Generation: true, Stored: stored,
		}
		if k.Singular == "" {
			k.Singular = strings.ToLower(k.Name)
		}
		if k.ListName == "" {
			k.ListName = k.Name + "List"
		}
		if object.String(crd, "metadata", "deletionTimestamp") != "" {
			k.Verbs = slices.DeleteFunc(slices.Clone(allVerbs), func(v string) bool { return v == "create" })
		}
		if err := k.define(o); err != nil {
			return nil, fmt.Errorf("spec.versions[%s]: %w", k.Version, err)
		}
		out = append(out, k)
	}
	for _, k := range out {
		k.siblings = out
	}
	return out, nil
}

// define fills in what a version says of a kind.
func (k *Kind) define(version object.Object) (err error) {
	if schema := object.Map(version, "schema", "openAPIV3Schema"); schema != nil {
		if k.Schema, err = newSchema(schema, "schema.openAPIV3Schema"); err != nil {
			return err
		}
	}
	subs := object.Map(version, "subresources")
	k.Status = object.Map(subs, "status") != nil
	if scale := object.Map(subs, "scale"); scale != nil {
		k.Scale = &Scale{}
		for name, to := range map[string]*[]string{"specReplicasPath": &k.Scale.Spec, "statusReplicasPath": &k.Scale.Status, "labelSelectorPath": &k.Scale.Selector} {
			if path := object.String(scale, name); path != "" {
				if *to, err = object.ParseNames(path); err != nil {
					return fmt.Errorf("subresources.scale.%s: %w", name, err)
				}
			}
		}
		if k.Scale.Spec == nil || k.Scale.Status == nil {
			return fmt.Errorf("subresources.scale: specReplicasPath and statusReplicasPath are required")
		}
	}
	for _, v := range object.List(version, "selectableFields") {
		f, _ := v.(object.Object)
		names, err := object.ParseNames(object.String(f, "jsonPath"))
		if err != nil {
			return fmt.Errorf("selectableFields: %w", err)
		}
		k.Fields = append(k.Fields, SelectableField{Name: strings.Join(names, "."), Path: names})
	}
	k.Columns = []Column{nameColumn}
	columns := object.List(version, "additionalPrinterColumns")
	for _, v := range columns {
		c, err := definedColumn(v)
		if err != nil {
			return err
		}
		k.Columns = append(k.Columns, c)
	}
	if len(columns) == 0 {
		k.Columns = append(k.Columns, ageColumn)
	}
	return nil
}

func definedColumn(v any) (Column, error) {
	o, _ := v.(object.Object)
	path, err := jsonpath.Parse("{" + object.String(o, "jsonPath") + "}")
	if err != nil {
		return Column{}, fmt.Errorf("additionalPrinterColumns[%s]: %w", object.String(o, "name"), err)
	}
	priority, _ := object.Int(o, "priority")
	return Column{
		Name: object.String(o, "name"), Type: object.String(o, "type"), Format: object.String(o, "format"),
		Description: object.String(o, "description"), Priority: int(priority), Path: path,
	}, nil
}

// checkDefinition refuses definitions that cannot be served.
func checkDefinition(o, old object.Object) (causes []Cause) {
	wrong := func(field, reason, text string) { causes = append(causes, Cause{reason, text, field}) }
	group, plural := object.String(o, "spec", "group"), object.String(o, "spec", "names", "plural")
	if name := object.String(o, "metadata", "name"); name != plural+"."+group {
		wrong("metadata.name", causeInvalid, fmt.Sprintf("Invalid value: %q: must be spec.names.plural+\".\"+spec.group", name))
	}
	if !strings.Contains(group, ".") {
		wrong("spec.group", causeInvalid, fmt.Sprintf("Invalid value: %q: should be a domain with at least one dot", group))
	}
	if slices.ContainsFunc(kinds.Resources(), func(r *kinds.Resource) bool { return r.Group == group }) {
		wrong("spec.group", causeInvalid, fmt.Sprintf("Invalid value: %q: is the group of built-in kinds", group))
	}
	if object.String(o, "spec", "names", "kind") == "" {
		wrong("spec.names.kind", causeRequired, "Required value")
	}
	if s := object.String(o, "spec", "scope"); s != "Namespaced" && s != "Cluster" {
		wrong("spec.scope", causeSupported, fmt.Sprintf("Unsupported value: %q: supported values: \"Cluster\", \"Namespaced\"", s))
	} else if old != nil && s != object.String(old, "spec", "scope") {
		wrong("spec.scope", causeInvalid, fmt.Sprintf("Invalid value: %q: field is immutable", s))
	}
	storage := 0
	for i, v := range object.List(o, "spec", "versions") {
		version, _ := v.(object.Object)
		if version["storage"] == true {
			storage++
		}
		if object.Map(version, "schema", "openAPIV3Schema") == nil {
			wrong(fmt.Sprintf("spec.versions[%d].schema.openAPIV3Schema", i), causeRequired, "Required value: schemas are required")
		}
	}
	if storage != 1 {
		wrong("spec.versions", causeInvalid, "Invalid value: must have exactly one version marked as storage version")
	}
	if len(causes) == 0 {
		if _, err := definedKinds(o); err != nil {
			wrong("spec.versions", causeInvalid, "Invalid value: "+err.Error())
		}
	}
	return causes
}

// establish changes a definition: it says itself that it is served, which it is
// as soon as it is stored.
func establish(o object.Object) {
	spec := object.Map(o, "spec")
	names := object.Map(spec, "names")
	if names == nil {
		return
	}
	kind := object.String(names, "kind")
	object.Default(spec, strings.ToLower(kind), "names", "singular")
	object.Default(spec, kind+"List", "names", "listKind")
	if spec["conversion"] == nil {
		spec["conversion"] = object.Object{"strategy": "None"}
	}
	stored := object.Strings(o, "status", "storedVersions")
	for _, v := range object.List(spec, "versions") {
		version, _ := v.(object.Object)
		if name := object.String(version, "name"); version["storage"] == true && !slices.Contains(stored, name) {
			stored = append(stored, name)
		}
	}
	if len(object.List(o, "status", "conditions")) == 0 {
		at := object.String(o, "metadata", "creationTimestamp")
		object.Set(o, []any{
			object.Object{"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found", "lastTransitionTime": at},
			object.Object{"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted", "lastTransitionTime": at},
		}, "status", "conditions")
	}
	object.Set(o, object.Copy(names), "status", "acceptedNames")
	object.Set(o, object.Anys(stored), "status", "storedVersions")
	finalizers := object.Strings(o, "metadata", "finalizers")
	if object.String(o, "metadata", "deletionTimestamp") == "" && !slices.Contains(finalizers, finalizerInstances) {
		object.Set(o, object.Anys(append(finalizers, finalizerInstances)), "metadata", "finalizers")
	}
}

func (l *Layer) definitionKind() *Kind {
	return l.catalog.Load().byPath[[3]string{definitionGroup, "v1", "customresourcedefinitions"}]
}

// followDefinitions keeps the catalog in step with the definitions until ctx ends.
func (l *Layer) followDefinitions(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := l.feed.collection(ctx, l.definitionKind())
		if err != nil {
			sleep(ctx, l.clock, restartPause)
			continue
		}
		l.followCollection(ctx, c)
	}
}

// followCollection does so while the definitions are not read anew.
func (l *Layer) followCollection(ctx context.Context, c *collection) {
	b := c.listen()
	defer c.leave(b)
	for ctx.Err() == nil {
		at := l.define(c)
		if changes, _, ok := c.after(nil, at); !ok || len(changes) > 0 {
			sleep(ctx, l.clock, restartPause)
			return
		}
		select {
		case <-b.rung:
		case <-ctx.Done():
		}
	}
}

// define makes the catalog of the definitions that there are, and returns the
// revision that it is of.
func (l *Layer) define(c *collection) int64 {
	l.defining.Lock()
	defer l.defining.Unlock()
	s := c.snapshot(0)
	if s.rev == l.defined {
		return s.rev
	}
	all := slices.Clone(builtinKinds())
	for _, e := range s.entries {
		crd, _, err := object.Decode(e.json)
		if err == nil {
			var made []*Kind
			if made, err = definedKinds(crd); err == nil {
				all = append(all, made...)
				continue
			}
		}
		l.log.Error("a definition cannot be served", "definition", e.key, "error", err)
	}
	before, after := l.catalog.Load(), newCatalog(all)
	l.catalog.Store(after)
	for _, k := range before.collections() {
		if now := after.storage(k.Prefix); now == nil || !sameFields(k, now) {
			l.feed.forget(k.Prefix)
		}
	}
	l.defined = s.rev
	return s.rev
}

// sameFields reports whether the cache of one serves the other.
func sameFields(a, b *Kind) bool {
	return slices.EqualFunc(a.Fields, b.Fields, func(x, y SelectableField) bool { return x.Name == y.Name })
}

// kindAt looks a kind up; before it says that there is none, it makes sure to know
// of every definition.
func (l *Layer) kindAt(ctx context.Context, group, version, plural string) (*Kind, error) {
	at := [3]string{group, version, plural}
	if k := l.catalog.Load().byPath[at]; k != nil {
		return k, nil
	}
	c, err := l.feed.collection(ctx, l.definitionKind())
	if err != nil {
		return nil, err
	}
	if _, err := l.upToDate(ctx); err != nil {
		return nil, err
	}
	l.define(c)
	if k := l.catalog.Load().byPath[at]; k != nil {
		return k, nil
	}
	if cat := l.catalog.Load(); !slices.Contains(cat.groups(), group) {
		return nil, noSuchPage()
	}
	return nil, noSuchPath()
}

// undefine deletes the objects of definitions that are dying, and lets go of
// those that have none.
func (l *Layer) undefine(ctx context.Context) error {
	definitions := l.definitionKind()
	s, err := l.snapshot(ctx, definitions, "")
	if err != nil {
		return err
	}
	for _, e := range s.entries {
		if !dies(e, finalizerInstances) {
			continue
		}
		crd, _, err := object.Decode(e.json)
		if err != nil {
			continue
		}
		left, err := l.deleteInstances(ctx, crd)
		if err != nil {
			return err
		}
		if left == 0 {
			if err := l.amend(ctx, node{definitions, e}, func(o object.Object) { release(o, finalizerInstances) }); err != nil && !isGone(err) {
				return err
			}
		}
	}
	return nil
}

func (l *Layer) deleteInstances(ctx context.Context, crd object.Object) (left int, err error) {
	made, err := definedKinds(crd)
	if err != nil || len(made) == 0 {
		return 0, nil // nobody could make any
	}
	k := l.storage(made[0])
	s, err := l.snapshot(ctx, k, "")
	if err != nil {
		return 0, err
	}
	return l.clear(ctx, k, s.entries)
}
