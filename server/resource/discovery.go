package resource

import (
	"crypto/sha512"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/server/resource/object"
)

// discover answers what kinds there are: all at once for who asks for the
// aggregated form, or group by group.
func (c *call) discover(path string) error {
	cat := c.layer.catalog.Load()
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case len(parts) == 1:
		if v := aggregatedVersion(c.r); v != "" {
			return c.sendAggregated(cat, parts[0] == "api", v)
		}
		if parts[0] == "api" {
			return c.sendDiscovery(object.Object{"kind": "APIVersions", "versions": []any{"v1"}, "serverAddressByClientCIDRs": []any{
				object.Object{"clientCIDR": "0.0.0.0/0", "serverAddress": c.r.Host}}})
		}
		var groups []any
		for _, g := range cat.groups() {
			if g != "" {
				groups = append(groups, cat.group(g))
			}
		}
		return c.sendDiscovery(object.Object{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
	case len(parts) == 2 && parts[0] == "api":
		return c.sendResources(cat, "", parts[1])
	case len(parts) == 2:
		if !slices.Contains(cat.groups(), parts[1]) {
			return noSuchPage()
		}
		g := cat.group(parts[1])
		g["kind"], g["apiVersion"] = "APIGroup", "v1"
		return c.sendDiscovery(g)
	case len(parts) == 3 && parts[0] == "apis":
		return c.sendResources(cat, parts[1], parts[2])
	}
	return noSuchPath()
}

func (c *call) sendDiscovery(o object.Object) error {
	return c.send(http.StatusOK, object.AppendValue(nil, o))
}

// groups are the groups that are served, the core group ("") first.
func (c *catalog) groups() []string {
	var out []string
	for _, k := range c.kinds {
		if !slices.Contains(out, k.Group) {
			out = append(out, k.Group)
		}
	}
	return out
}

// versions are the groups and versions that are served.
func (c *catalog) versions() [][2]string {
	var out [][2]string
	for _, k := range c.kinds {
		if gv := [2]string{k.Group, k.Version}; !slices.Contains(out, gv) {
			out = append(out, gv)
		}
	}
	return out
}

// of are the versions of a group, the preferred one first: stable before beta
// before alpha, and the higher number.
func (c *catalog) versionsOf(group string) []string {
	var out []string
	for _, gv := range c.versions() {
		if gv[0] == group {
			out = append(out, gv[1])
		}
	}
	slices.SortFunc(out, func(a, b string) int { return compareVersions(b, a) })
	return out
}

func (c *catalog) group(name string) object.Object {
	var versions []any
	for _, v := range c.versionsOf(name) {
		versions = append(versions, object.Object{"groupVersion": apiVersion(name, v), "version": v})
	}
	return object.Object{"name": name, "versions": versions, "preferredVersion": versions[0]}
}

// subresources are what discovery names below a resource.
func (k *Kind) subresources() []subresource {
	var out []subresource
	edit := []string{"get", "patch", "update"}
	if k.Group == "" {
		switch k.Plural {
		case "namespaces":
			out = append(out, subresource{"finalize", "", "", k.Name, []string{"update"}})
		case "pods":
			out = append(out, subresource{"binding", "", "", "Binding", []string{"create"}},
				subresource{"ephemeralcontainers", "", "", k.Name, edit},
				subresource{"eviction", "policy", "v1", "Eviction", []string{"create"}})
		}
	}
	if k.Scale != nil {
		out = append(out, subresource{"scale", "autoscaling", "v1", "Scale", edit})
	}
	if k.Status {
		out = append(out, subresource{"status", "", "", k.Name, edit})
	}
	return out
}

type subresource struct {
	name, group, version, kind string
	verbs                      []string
}

// sendResources answers /api/v1 and /apis/group/version.
func (c *call) sendResources(cat *catalog, group, version string) error {
	var list []any
	for _, k := range cat.kinds {
		if k.Group != group || k.Version != version {
			continue
		}
		r := object.Object{"name": k.Plural, "singularName": k.Singular, "namespaced": k.Namespaced, "kind": k.Name, "verbs": object.Anys(k.verbs())}
		if len(k.Short) > 0 {
			r["shortNames"] = object.Anys(k.Short)
		}
		if len(k.Categories) > 0 {
			r["categories"] = object.Anys(k.Categories)
		}
		list = append(list, r)
		for _, s := range k.subresources() {
			r := object.Object{"name": k.Plural + "/" + s.name, "singularName": "", "namespaced": k.Namespaced, "kind": s.kind, "verbs": object.Anys(s.verbs)}
			if s.version != "" {
				r["group"], r["version"] = s.group, s.version
			}
			list = append(list, r)
		}
	}
	if list == nil {
		return noSuchPath()
	}
	o := object.Object{"kind": "APIResourceList", "groupVersion": apiVersion(group, version), "resources": list}
	if group != "" {
		o["apiVersion"] = "v1" // the core group's list is older than its field
	}
	return c.sendDiscovery(o)
}

// aggregatedVersion is the version of the aggregated form that the client takes;
// empty: it does not.
func aggregatedVersion(r *http.Request) string {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	for _, v := range []string{"v2", "v2beta1"} {
		if strings.Contains(accept, "g=apidiscovery.k8s.io;v="+v+";as=APIGroupDiscoveryList") {
			return v
		}
	}
	return ""
}

// sendAggregated answers /api or /apis with everything in it.
func (c *call) sendAggregated(cat *catalog, core bool, version string) error {
	var items []any
	for _, g := range cat.groups() {
		if (g == "") != core {
			continue
		}
		var versions []any
		for _, v := range cat.versionsOf(g) {
			versions = append(versions, object.Object{"version": v, "freshness": "Current", "resources": cat.aggregated(g, v)})
		}
		meta := object.Object{}
		if g != "" {
			meta["name"] = g
		}
		items = append(items, object.Object{"metadata": meta, "versions": versions})
	}
	b := object.AppendValue(nil, object.Object{"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/" + version, "metadata": object.Object{}, "items": items})
	sum := sha512.Sum512(b)
	etag := `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`
	h := c.w.Header()
	h.Set("ETag", etag)
	h.Set("Vary", "Accept")
	h.Set("Cache-Control", "public")
	h.Set("Content-Type", jsonType+";g=apidiscovery.k8s.io;v="+version+";as=APIGroupDiscoveryList")
	if c.r.Header.Get("If-None-Match") == etag {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return c.send(http.StatusOK, b)
}

func (c *catalog) aggregated(group, version string) []any {
	var out []any
	for _, k := range c.kinds {
		if k.Group != group || k.Version != version {
			continue
		}
		scope := "Cluster"
		if k.Namespaced {
			scope = "Namespaced"
		}
		r := object.Object{"resource": k.Plural, "scope": scope, "singularResource": k.Singular, "verbs": object.Anys(k.verbs()), "responseKind": k.answered("", "", k.Name)}
		if len(k.Short) > 0 {
			r["shortNames"] = object.Anys(k.Short)
		}
		if len(k.Categories) > 0 {
			r["categories"] = object.Anys(k.Categories)
		}
		var subs []any
		for _, s := range k.subresources() {
			subs = append(subs, object.Object{"subresource": s.name, "verbs": object.Anys(s.verbs), "responseKind": k.answered(s.group, s.version, s.kind)})
		}
		if subs != nil {
			r["subresources"] = subs
		}
		out = append(out, r)
	}
	return out
}

// answered names the kind that a resource answers with. Built-in ones leave out group
// and version that are their own, as in a kube-apiserver.
func (k *Kind) answered(group, version, kind string) object.Object {
	if version == "" && k.Custom {
		group, version = k.Group, k.Version
	}
	return object.Object{"group": group, "version": version, "kind": kind}
}

// compareVersions orders v1alpha1 < v1beta1 < v1 < v2.
func compareVersions(a, b string) int {
	an, bn := versionRank(a), versionRank(b)
	return slices.Compare(an[:], bn[:])
}

// stable is the rank of versions that are neither alpha nor beta.
const stable = 3

// versionRank is stability, major and minor number of a version's name.
func versionRank(v string) (rank [3]int) {
	rest, ok := strings.CutPrefix(v, "v")
	if !ok {
		return rank
	}
	rank[0] = stable
	for i, stage := range []string{"alpha", "beta"} {
		if major, minor, ok := strings.Cut(rest, stage); ok {
			rank[0], rest = i+1, major
			rank[2] = digits(minor)
		}
	}
	rank[1] = digits(rest)
	return rank
}

func digits(s string) int {
	n := 0
	for _, r := range s {
		if r < '0' || r > '9' {
			return 0
		}
		n = n*10 + int(r-'0')
	}
	return n
}
