package kinds

import (
	_ "embed" // for the resources
	"slices"
	"strings"
	"sync"
)

// Resource is a collection of objects of one kind, as discovery shows it.
type Resource struct {
	Group   string // "" for the core group
	Version string // the preferred one
	Name    string // plural, as in URLs
	Kind    string
	// Namespaced says that an object's name is unique in its namespace only.
	Namespaced bool
	// Prefix is where a kube-apiserver stores the objects, below /registry/;
	// empty if it does not.
	Prefix       string
	Short        []string // names that kubectl takes
	Categories   []string
	Subresources []string
}

// APIVersion is the group and the version as objects have them.
func (r *Resource) APIVersion() string {
	if r.Group == "" {
		return r.Version
	}
	return r.Group + "/" + r.Version
}

// Singular is the name of one object's resource, as in `kubectl get -o name`.
func (r *Resource) Singular() string { return strings.ToLower(r.Kind) }

// Key is where an object is stored, below a root such as /registry. Without a
// name it is the prefix of a namespace, without a namespace too that of all.
func (r *Resource) Key(root, namespace, name string) string {
	key := root + "/" + r.Prefix + "/"
	if r.Namespaced && namespace != "" {
		key += namespace + "/"
	}
	return key + name
}

//go:embed resources.txt
var resourceLines string

// Resources returns the resources of the built-in kinds, those of the core group
// first. The slice and what it has are shared: do not change them.
var Resources = sync.OnceValue(func() []*Resource {
	var out []*Resource
	for line := range strings.Lines(resourceLines) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		for i := range words {
			if words[i] == "-" {
				words[i] = ""
			}
		}
		words = append(words, make([]string, 9-len(words))...)
		out = append(out, &Resource{
			Group: words[0], Version: words[1], Name: words[2], Kind: words[3], Namespaced: words[4] == "ns", Prefix: words[5],
			Short: list(words[6]), Categories: list(words[7]), Subresources: list(words[8]),
		})
	}
	return out
})

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func find(match func(*Resource) bool) *Resource {
	all := Resources()
	if i := slices.IndexFunc(all, match); i >= 0 {
		return all[i]
	}
	return nil
}

// ByName returns the resource of a group with a plural name; nil if there is none.
func ByName(group, name string) *Resource {
	return find(func(r *Resource) bool { return r.Group == group && r.Name == name })
}

// ByKind returns the resource whose objects have a kind, in any version of the
// group of apiVersion; nil if there is none.
func ByKind(apiVersion, kind string) *Resource {
	group, _ := SplitAPIVersion(apiVersion)
	return find(func(r *Resource) bool { return r.Group == group && r.Kind == kind })
}

// ByPrefix returns the first resource that is stored below a prefix, such as
// pods or services/specs; nil if there is none.
func ByPrefix(prefix string) *Resource {
	return find(func(r *Resource) bool { return r.Prefix != "" && r.Prefix == prefix })
}

// SplitAPIVersion is group and version of an object's apiVersion.
func SplitAPIVersion(apiVersion string) (group, version string) {
	if group, version, ok := strings.Cut(apiVersion, "/"); ok {
		return group, version
	}
	return "", apiVersion
}
