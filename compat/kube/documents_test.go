package kube

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const (
	plainJSON  = "application/json"
	aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	tableJSON  = "application/json;as=Table;g=meta.k8s.io;v=v1"
)

// documents compares what is no object: discovery, OpenAPI, and the tables of kinds.
func (c *comparison) documents(ctx context.Context, t *testing.T, only string) {
	for _, part := range []struct {
		section string
		compare func(context.Context, *testing.T, string)
	}{{"Discovery", c.compareDiscovery}, {"Aggregated discovery", c.compareAggregated}, {"OpenAPI", c.compareOpenAPI}, {"Tables", c.compareTables}} {
		if only == "" || slices.Contains(strings.Split(only, ","), part.section) {
			part.compare(ctx, t, part.section)
		}
	}
}

// named are the objects of a list by the fields that name them.
func byName(list any, fields ...string) map[string]any {
	out := map[string]any{}
	all, _ := list.([]any)
	for _, v := range all {
		var names []string
		for _, f := range fields {
			names = append(names, fmt.Sprint(at(v, f)))
		}
		out[strings.Join(names, " ")] = v
	}
	return out
}

// each compares the pieces of two documents.
func (c *comparison) each(section, title string, left, right map[string]any) {
	all := maps.Clone(left)
	maps.Copy(all, right)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c.note(section, title+" "+name, left[name], right[name])
	}
}

// whole compares what is around the pieces, which are taken out.
func (c *comparison) whole(section, title string, left, right map[string]any, pieces string) (l, r any) {
	take := func(answer map[string]any) any {
		body, _ := answer["body"].(map[string]any)
		v := body[pieces]
		delete(body, pieces)
		return v
	}
	l, r = take(left), take(right)
	c.note(section, title, left, right)
	return l, r
}

// compareDiscovery: the documents of groups, and each resource of each version.
func (c *comparison) compareDiscovery(ctx context.Context, _ *testing.T, section string) {
	left, right := c.get(ctx, "/api", plainJSON)
	c.note(section, "/api", left, right)
	left, right = c.get(ctx, "/apis", plainJSON)
	l, r := c.whole(section, "/apis", left, right, "groups")
	c.each(section, "group", byName(l, "name"), byName(r, "name"))
	paths := []string{"/api/v1"}
	for _, g := range l.([]any) {
		name := fmt.Sprint(at(g, "name"))
		left, right := c.get(ctx, "/apis/"+name, plainJSON)
		c.note(section, "/apis/"+name, left, right)
		versions, _ := at(g, "versions").([]any)
		for _, v := range versions {
			paths = append(paths, "/apis/"+fmt.Sprint(at(v, "groupVersion")))
		}
	}
	for _, path := range paths {
		left, right := c.get(ctx, path, plainJSON)
		l, r := c.whole(section, path, left, right, "resources")
		hideHash(l)
		hideHash(r)
		c.each(section, path, byName(l, "name"), byName(r, "name"))
	}
}

// hideHash takes out what a kube-apiserver tells other kube-apiservers.
func hideHash(resources any) {
	list, _ := resources.([]any)
	for _, v := range list {
		delete(v.(map[string]any), "storageVersionHash")
	}
}

// compareAggregated: each resource of the two large documents.
func (c *comparison) compareAggregated(ctx context.Context, _ *testing.T, section string) {
	for _, path := range []string{"/api", "/apis"} {
		left, right := c.get(ctx, path, aggregated)
		l, r := c.whole(section, "aggregated "+path, left, right, "items")
		flat := func(groups any) map[string]any {
			out := map[string]any{}
			for group, g := range byName(groups, "metadata.name") {
				for version, v := range byName(at(g, "versions"), "version") {
					for name, r := range byName(at(v, "resources"), "resource") {
						o := r.(map[string]any)
						if subs, ok := o["subresources"].([]any); ok {
							o["subresources"] = sorted(subs, "subresource")
						}
						out[group+" "+version+" "+name] = r
					}
					delete(v.(map[string]any), "resources")
				}
				out[group] = g
			}
			return out
		}
		c.each(section, "aggregated", flat(l), flat(r))
	}
}

// documented are the groups and versions whose OpenAPI documents are compared.
var documented = []string{"api/v1", "apis/apps/v1", "apis/batch/v1", "apis/networking.k8s.io/v1", "apis/apiextensions.k8s.io/v1", "apis/rbac.authorization.k8s.io/v1"}

// compareOpenAPI: the index, and of some documents which operations and schemas
// there are, and what each schema says.
func (c *comparison) compareOpenAPI(ctx context.Context, t *testing.T, section string) {
	left, right := c.get(ctx, "/openapi/v3", plainJSON)
	l, r := c.whole(section, "the index of OpenAPI", left, right, "paths")
	lm, _ := l.(map[string]any)
	rm, _ := r.(map[string]any)
	c.each(section, "the index of OpenAPI names", lm, rm)
	for _, at := range documented {
		left, right := c.get(ctx, "/openapi/v3/"+at, plainJSON)
		c.shared(section, at+" path", methods(left), methods(right))
		c.shared(section, at+" schema", schemas(left), schemas(right))
	}
}

// shared compares the pieces that both documents have, and then which those are.
func (c *comparison) shared(section, title string, left, right map[string]any) {
	var missing, more []any
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if _, both := right[name]; !both {
			missing = append(missing, name)
			continue
		}
		c.note(section, title+" "+name, left[name], right[name])
	}
	for _, name := range slices.Sorted(maps.Keys(right)) {
		if _, both := left[name]; !both {
			more = append(more, name)
		}
	}
	c.note(section, title+"s that one of them has", []any{missing}, []any{more})
}

// methods are the methods of each path of a document.
func methods(answer map[string]any) map[string]any {
	out := map[string]any{}
	paths, _ := at(answer, ".body.paths").(map[string]any)
	for path, v := range paths {
		item, _ := v.(map[string]any)
		var names []any
		for _, m := range []string{"get", "put", "post", "patch", "delete"} {
			if item[m] != nil {
				names = append(names, m)
			}
		}
		out[path] = names
	}
	return out
}

func schemas(answer map[string]any) map[string]any {
	components, _ := at(answer, ".body.components").(map[string]any)
	out, _ := components["schemas"].(map[string]any)
	for name, v := range out {
		out[name] = essential(v)
	}
	return out
}

// essential is a schema without what says the same in other words: defaults, what merges
// as a whole (at a type or where it is used), and a lone reference in a list; what is
// required has no order.
func essential(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for _, name := range []string{"default", "x-kubernetes-map-type", "x-kubernetes-unions"} {
			if o, _ := x[name].(map[string]any); o["type"] == nil && o["$ref"] == nil && o["additionalProperties"] == nil { // it may be a property's name
				delete(x, name)
			}
		}
		if all, ok := x["allOf"].([]any); ok && len(all) == 1 {
			delete(x, "allOf")
			maps.Copy(x, all[0].(map[string]any))
		}
		for name, e := range x {
			if list, ok := e.([]any); ok && name == "required" {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
			x[name] = essential(e)
		}
	case []any:
		for i := range x {
			x[i] = essential(x[i])
		}
	}
	return v
}

// compareTables: an object of each kind is made, and shown as a table.
func (c *comparison) compareTables(ctx context.Context, t *testing.T, section string) {
	all, err := LoadStubs()
	if err != nil {
		t.Fatal(err)
	}
	create := func(path string, o map[string]any) (left, right map[string]any) {
		return c.both(ctx, Request{method: http.MethodPost, path: path, header: http.Header{}, body: sideText(o, true)})
	}
	left, right := create("/api/v1/namespaces", map[string]any{"metadata": map[string]any{"name": all.Namespace}})
	c.note(section, "making the namespace", left, right)
	for _, s := range all.Stubs {
		base := "/apis/" + s.GroupVersion().String()
		if s.Group == "" {
			base = "/api/" + s.Version
		}
		if strings.Contains(s.Key, "/"+all.Namespace+"/") {
			base += "/namespaces/" + all.Namespace
		}
		name := fmt.Sprintf("%s.%s.%s", s.Resource, s.Version, s.Group)
		if l, _ := c.get(ctx, base+"/"+s.Resource, plainJSON); l["code"] != http.StatusOK {
			continue // of another version, or not on by default
		}
		left, right := create(base+"/"+s.Resource, s.Object.Object)
		c.note(section, "making "+name, left, right)
		left, right = c.get(ctx, base+"/"+s.Resource+"/"+s.Object.GetName(), tableJSON)
		c.note(section, "table of "+name, left, right)
	}
}
