package resource

import (
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/keelson-io/keelson/api/jsonpath"
	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// Kind is one served version of a resource. It does not change; a changed
// definition makes another one.
type Kind struct {
	Group, Version string
	Name           string // Pod
	Plural         string // pods
	Singular       string
	ListName       string // PodList
	Short          []string
	Categories     []string
	Namespaced     bool
	Verbs          []string // nil: all

	// Prefix is where its objects lie, with the slash at its end. The served versions of one
	// resource have the same.
	Prefix string
	// Custom kinds are defined by an object; their bodies must say what they are,
	// and unconditional updates are refused.
	Custom bool
	// Generation: changes outside metadata and status are counted.
	Generation bool
	// Status: the field status is written through the subresource only.
	Status bool
	Scale  *Scale // nil: it cannot be scaled
	// Fields can be selected by, beside the name and the namespace.
	Fields []SelectableField
	// Columns of a custom kind's tables, beside the name; nil: the age.
	Columns []Column
	// UpsertByPut: a PUT of an absent object creates it.
	UpsertByPut bool
	// Rules of strategic merge patches; nil: the kind has none.
	Rules object.Rules
	// Layout of a built-in kind's objects; nil: not known.
	Layout *kinds.Message
	// Schema that objects must keep; nil: anything goes.
	Schema *Schema
	// Stored is the apiVersion that objects are written with, and From turns what
	// is stored into this version; nil: only apiVersion differs. Into goes back.
	Stored     string
	From, Into func(object.Object) object.Object
	// Annotations in which this version has fields of the stored one: they are written with the
	// specification, or with the status.
	SpecNotes, StatusNotes []string
	// TTL: objects go by themselves.
	TTL bool

	siblings []*Kind // all versions, this one among them; nil: there is no other

	merging sync.Once // makes mergeAs
	mergeAs typed.ParseableType

	showing sync.Once // makes shown
	shown   []Column  // of a built-in kind

	emptying sync.Once // makes empty
	empty    object.Object
}

// conform makes of an object what its kind's type makes of it.
func (k *Kind) conform(o object.Object) error {
	if k.Layout == nil {
		return nil
	}
	return kinds.Conform(k.Layout, o)
}

// blank is an object of the kind of which nothing is said. It must not be changed.
func (k *Kind) blank() object.Object {
	k.emptying.Do(func() {
		k.empty = object.Object{}
		if k.conform(k.empty) != nil {
			k.empty = object.Object{} // nothing in it can be wrong
		}
		k.empty["apiVersion"], k.empty["kind"] = k.APIVersion(), k.Name
	})
	return k.empty
}

// Scale says where a kind keeps its number of replicas.
type Scale struct {
	Spec, Status []string // paths of names
	Selector     []string // path of a label selector's text, or nil
	Object       bool     // spec.selector is an object, as in the built-in kinds
}

// SelectableField is a field that lists can be restricted by.
type SelectableField struct {
	Name    string // as selectors write it
	Path    []string
	Default string // when the object lacks it
}

// Column is a column of a kind's tables.
type Column struct {
	Name, Type, Format, Description string
	Priority                        int
	Path                            *jsonpath.Template // nil for built-in kinds, whose cells package kinds makes
}

// APIVersion is group and version as objects write them.
func (k *Kind) APIVersion() string { return apiVersion(k.Group, k.Version) }

func apiVersion(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

func splitAPIVersion(s string) (group, version string) {
	if g, v, ok := strings.Cut(s, "/"); ok {
		return g, v
	}
	return "", s
}

// storedVersion is the apiVersion that stored bytes have.
func (k *Kind) storedVersion() string {
	if k.Stored != "" {
		return k.Stored
	}
	return k.APIVersion()
}

// sibling is the version of the kind with a name; nil: there is none.
func (k *Kind) sibling(version string) *Kind {
	for _, s := range k.siblings {
		if s.APIVersion() == version {
			return s
		}
	}
	return nil
}

// fromStored makes the kind's version of an object of the stored one, which it may use up.
func (k *Kind) fromStored(o object.Object) object.Object {
	if k.From != nil {
		return k.From(o)
	}
	o["apiVersion"] = k.APIVersion()
	return o
}

// intoStored goes back.
func (k *Kind) intoStored(o object.Object) object.Object {
	if k.Into != nil {
		return k.Into(o)
	}
	o["apiVersion"] = k.storedVersion()
	return o
}

// key is where an object lies.
func (k *Kind) key(namespace, name string) string {
	if k.Namespaced {
		return k.Prefix + namespace + "/" + name
	}
	return k.Prefix + name
}

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

func (k *Kind) verbs() []string {
	if k.Verbs != nil {
		return k.Verbs
	}
	return allVerbs
}

func (k *Kind) can(verb string) bool { return slices.Contains(k.verbs(), verb) }

// catalog is all kinds that are served. It does not change: a definition makes
// another one.
type catalog struct {
	kinds    []*Kind // by group, version, plural
	byPath   map[[3]string]*Kind
	byKind   map[[3]string]*Kind
	prefixes map[string][]*Kind // the versions of each collection

	docs struct {
		sync.Mutex
		made map[[2]string][]byte // OpenAPI documents that were asked for
	}
}

func newCatalog(kinds []*Kind) *catalog {
	c := &catalog{kinds: slices.Clone(kinds), byPath: map[[3]string]*Kind{}, byKind: map[[3]string]*Kind{}, prefixes: map[string][]*Kind{}}
	c.docs.made = map[[2]string][]byte{}
	slices.SortFunc(c.kinds, func(a, b *Kind) int {
		return slices.Compare([]string{a.Group, a.Version, a.Plural}, []string{b.Group, b.Version, b.Plural})
	})
	for _, k := range c.kinds {
		c.byPath[[3]string{k.Group, k.Version, k.Plural}] = k
		c.byKind[[3]string{k.Group, k.Version, k.Name}] = k
		if k.Prefix != "" {
			c.prefixes[k.Prefix] = append(c.prefixes[k.Prefix], k)
		}
	}
	return c
}

// storage returns the kind that a collection's objects are stored as.
func (c *catalog) storage(prefix string) *Kind {
	for _, k := range c.prefixes[prefix] {
		if k.Stored == "" || k.Stored == k.APIVersion() {
			return k
		}
	}
	return nil
}

// named returns the kind that an object says it is.
func (c *catalog) named(version, kind string) *Kind {
	g, v := splitAPIVersion(version)
	return c.byKind[[3]string{g, v, kind}]
}

// collections returns the storage kind of each collection, in order.
func (c *catalog) collections() []*Kind {
	var out []*Kind
	for _, k := range c.kinds {
		if k.Prefix != "" && c.storage(k.Prefix) == k {
			out = append(out, k)
		}
	}
	return out
}
