package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api/kinds"
)

// objects says which keys hold Kubernetes objects, and how they are shown.
type objects struct {
	root    string // below which a kube-apiserver keeps them
	plain   bool   // show them as keys and bytes all the same
	managed bool   // show metadata.managedFields, which kubectl hides
}

func (o *objects) flags(f *pflag.FlagSet) {
	f.StringVar(&o.root, "registry", "/registry", "the `prefix` of Kubernetes objects (kube-apiserver's --etcd-prefix)")
	f.BoolVar(&o.plain, "plain", false, "show Kubernetes objects as keys and bytes, as etcdctl does")
}

// are reports whether what is at and below key is to be shown as objects. Whoever
// asks for etcdctl's plain lines or for hexadecimal gets those.
func (o *objects) are(a *app, key []byte) bool {
	asked := a.given["output"] || a.given["write-out"]
	if o.plain || a.capture != nil || a.hex || asked && a.output == outSimple {
		return false
	}
	return string(key) == o.root || strings.HasPrefix(string(key), o.root+"/")
}

// object is a key below the root, with what could be made of its value.
type object struct {
	kv              *mvccpb.KeyValue
	namespace, name string
	kind            string
	is              *kinds.Object // nil if the value is not readable
	err             error         // why it is not
}

// read decodes a value. Of one that cannot be read, the key still says what it is.
func (o *objects) read(kv *mvccpb.KeyValue) *object {
	out := &object{kv: kv}
	if out.is, out.err = kinds.Decode(kv.Value); out.err != nil {
		out.is = nil
		r, rest := o.resource(string(kv.Key))
		if r != nil {
			out.kind = r.Kind
			if r.Namespaced {
				out.namespace, out.name, _ = strings.Cut(rest, "/")
			}
		}
		if out.name == "" {
			out.name = rest
		}
		return out
	}
	v := kinds.View(out.is.Fields)
	out.kind, out.namespace, out.name = out.is.Kind, v.Text("metadata.namespace"), v.Text("metadata.name")
	if out.name == "" { // a few internal objects have none
		out.name = string(kv.Key[strings.LastIndexByte(string(kv.Key), '/')+1:])
	}
	if m := v.Sub("metadata"); m != nil {
		// As a kube-apiserver does: the version is the key's, never stored.
		m["resourceVersion"] = strconv.FormatInt(kv.ModRevision, 10)
		if !o.managed {
			delete(m, "managedFields")
		}
	}
	return out
}

// resource finds the built-in resource that a key belongs to, and the rest of
// the key. A resource's prefix has one segment or two.
func (o *objects) resource(key string) (*kinds.Resource, string) {
	rest := strings.TrimPrefix(strings.TrimPrefix(key, o.root), "/")
	parts := strings.SplitN(rest, "/", 3)
	for n := min(len(parts), 2); n > 0; n-- {
		prefix := strings.Join(parts[:n], "/")
		if r := kinds.ByPrefix(prefix); r != nil {
			return r, strings.TrimPrefix(strings.TrimPrefix(rest, prefix), "/")
		}
	}
	return nil, rest
}

// label is the kind of the objects whose prefix is path, for a tree of keys.
func (o *objects) label(path string) string {
	if r, rest := o.resource(path); r != nil && rest == "" && strings.HasPrefix(path, o.root+"/") {
		return " " + r.Kind
	}
	return ""
}

// collection reports whether a key is surely the prefix of several objects: the
// root, a resource or a namespace of one.
func (o *objects) collection(key string) bool {
	r, rest := o.resource(key)
	return strings.HasSuffix(key, "/") || key == o.root || r != nil && (rest == "" || r.Namespaced && !strings.Contains(rest, "/"))
}

// get shows the objects of a request. One key is an object or, if there is none
// of that name, the prefix of some.
func (o *objects) get(ctx context.Context, a *app, r *pb.RangeRequest, stream bool) error {
	below := func() {
		r.Key = []byte(strings.TrimSuffix(string(r.Key), "/") + "/")
		r.RangeEnd = prefixEnd(r.Key)
	}
	asked := string(r.Key)
	one := len(r.RangeEnd) == 0
	if one && o.collection(asked) {
		below()
	}
	resp, err := a.read(ctx, r, stream)
	if err == nil && len(resp.Kvs) == 0 && len(r.RangeEnd) == 0 {
		below()
		resp, err = a.read(ctx, r, stream)
	}
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 && (a.output == outSimple || a.output == outTable || a.output == outWide) {
		fmt.Fprintf(a.errs, "kvctl: there are no objects at %s\n", asked)
		return nil
	}
	list := make([]*object, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		list[i] = o.read(kv)
	}
	return o.show(ctx, a, list, one && len(r.RangeEnd) == 0)
}

// value is how a value that cannot be read is described.
func (x *object) value() string {
	var secret *kinds.EncryptedError
	if errors.As(x.err, &secret) {
		return secret.Error()
	}
	return fmt.Sprintf("%v (%s)", x.err, size(int64(len(x.kv.Value))))
}

// resourceName is an object's name as `kubectl get -o name` prints it.
func (x *object) resourceName() string {
	if x.is == nil {
		return string(x.kv.Key)
	}
	kind := strings.ToLower(x.kind)
	if group, _ := kinds.SplitAPIVersion(x.is.APIVersion); group != "" {
		kind += "." + group
	}
	return kind + "/" + x.name
}

// maxReports is how many objects are named on standard error; the rest is counted.
const maxReports = 10

// report says what of the objects could not be shown: fields that the table does
// not have and, if the form of output has no place for them, whole values.
func (a *app) reportObjects(list []*object, needAll bool) error {
	unread, strange := 0, 0
	for _, x := range list {
		switch {
		case x.is == nil && needAll:
			if unread++; unread <= maxReports {
				fmt.Fprintf(a.errs, "kvctl: %s: %s\n", x.kv.Key, x.value())
			}
		case x.is != nil && len(x.is.Unknown) > 0:
			if strange++; strange <= maxReports {
				fmt.Fprintf(a.errs, "kvctl: %s: fields that are not known and not shown: %s\n", x.kv.Key, unknownFields(x.is.Unknown))
			}
		}
	}
	if strange > 0 {
		fmt.Fprintf(a.errs, "kvctl: %d of %d objects have fields that are not in %s\n", strange, len(list), kinds.Source())
	}
	if unread > 0 {
		return checkFailed("get", fmt.Errorf("%d of %d values cannot be shown in this form", unread, len(list)), "--plain shows them as bytes, -o raw writes them as they are")
	}
	return nil
}

func unknownFields(list []kinds.Unknown) string {
	var out []string
	for i, u := range list {
		if i == maxReports {
			out = append(out, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		out = append(out, u.String())
	}
	return strings.Join(out, ", ")
}
