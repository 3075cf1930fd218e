package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// objectChange is what became of an object, for json and yaml.
type objectChange struct {
	Key      string `json:"key"`
	Type     string `json:"type,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	Before   any    `json:"before,omitempty"`
	After    any    `json:"after,omitempty"`
}

// whole is an object for json and yaml; of a value that cannot be read, why.
func (o *objects) whole(kv *mvccpb.KeyValue) any {
	if kv == nil {
		return nil
	}
	x := o.read(kv)
	if x.is == nil {
		return x.value()
	}
	return x.is.Fields
}

// fieldChange is a field that two states of an object do not share.
type fieldChange struct {
	path          string
	before, after string // "": it is not there
}

// changes compares two states of an object, of which one may be nil. The version,
// which is different in all, is left out.
func (o *objects) changes(before, after *mvccpb.KeyValue) (out []fieldChange) {
	was, is := o.fields(before), o.fields(after)
	paths := maps.Clone(was)
	maps.Copy(paths, is)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if was[path] != is[path] {
			out = append(out, fieldChange{path, was[path], is[path]})
		}
	}
	return out
}

// fields are an object's values by their paths.
func (o *objects) fields(kv *mvccpb.KeyValue) map[string]string {
	out := map[string]string{}
	if kv == nil {
		return out
	}
	x := o.read(kv)
	if x.is == nil {
		out["value"] = x.value()
		return out
	}
	flatten(out, "", x.is.Fields)
	delete(out, "metadata.resourceVersion")
	return out
}

func flatten(out map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, sub := range v {
			flatten(out, joinPath(path, name), sub)
		}
		if len(v) > 0 {
			return
		}
	case []any:
		for i, sub := range v {
			flatten(out, fmt.Sprintf("%s[%d]", path, i), sub)
		}
		if len(v) > 0 {
			return
		}
	case string:
		// Only what would not be read back as the same text is quoted.
		if q := fmt.Sprintf("%q", v); v != "" && q == `"`+v+`"` {
			out[path] = v
			return
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		b = fmt.Append(nil, v)
	}
	out[path] = string(b)
}

// joinPath goes down to a field, as JSONPath does.
func joinPath(path, name string) string {
	switch {
	case strings.ContainsAny(name, ". []/\"") || name == "":
		return fmt.Sprintf("%s[%q]", path, name)
	case path == "":
		return name
	}
	return path + "." + name
}

// printChanges writes a line for each side of each field.
func (a *app) printChanges(w io.Writer, list []fieldChange) {
	for _, c := range list {
		if c.before != "" {
			fmt.Fprintln(w, a.paint(red, "- "+printable(c.path+": "+c.before)))
		}
		if c.after != "" {
			fmt.Fprintln(w, a.paint(green, "+ "+printable(c.path+": "+c.after)))
		}
	}
}

// cell is the changes as they stand in a table.
func cell(list []fieldChange) string {
	var parts []string
	for _, c := range list {
		parts = append(parts, printable(fmt.Sprintf("%s: %s → %s", c.path, or(c.before, "none"), or(c.after, "none"))))
	}
	return strings.Join(parts, ", ")
}

// historyOf shows what was written to objects, each time what that changed. The
// first state that is known is shown whole.
func (o *objects) historyOf(a *app, events []*mvccpb.Event, from any) error {
	last := map[string]*mvccpb.KeyValue{}
	var all []objectChange
	var changed [][]fieldChange
	r := result{head: []string{"EVENT", "REVISION", "VERSION", "CHANGED"}}
	for _, e := range events {
		key, after := string(e.Kv.Key), e.Kv
		if e.Type == mvccpb.Event_DELETE {
			after = nil
		}
		var list []fieldChange
		if after != nil {
			list = o.changes(last[key], after)
		}
		last[key] = after
		changed = append(changed, list)
		all = append(all, objectChange{Key: key, Type: e.Type.String(), Revision: e.Kv.ModRevision, After: o.whole(after)})
		r.rows = append(r.rows, []string{e.Type.String(), fmt.Sprint(e.Kv.ModRevision), fmt.Sprint(e.Kv.Version), cell(list)})
	}
	r.value = map[string]any{"events": all, "since": from}
	r.simple = func(w io.Writer) {
		for i, e := range events {
			fmt.Fprintf(w, "%s at %d, version %d\n", e.Type, e.Kv.ModRevision, e.Kv.Version)
			a.printChanges(w, changed[i])
		}
	}
	return a.show(r)
}

// diff shows differences between two revisions by the fields that are different.
// One key is an object or, if none of that name has changed, the prefix of some.
func (o *objects) diff(ctx context.Context, a *app, one, two int64, key, end []byte) error {
	key, end = o.span(key, end)
	changes, err := a.diff(ctx, one, two, asRange(key, end))
	if err == nil && len(changes) == 0 && len(end) == 0 {
		below := append(key, '/')
		changes, err = a.diff(ctx, one, two, asRange(below, prefixEnd(below)))
	}
	if err != nil {
		return err
	}
	all := []objectChange{}
	r := result{head: []string{"", "KEY", "CHANGED"}}
	for _, c := range changes {
		all = append(all, objectChange{Key: c.Key, Before: o.whole(c.Before), After: o.whole(c.After)})
		r.rows = append(r.rows, []string{c.mark(), printable(c.Key), cell(o.changes(c.Before, c.After))})
	}
	r.value = all
	r.simple = func(w io.Writer) {
		for _, c := range changes {
			fmt.Fprintf(w, "%s %s\n", c.mark(), printable(c.Key))
			a.printChanges(w, o.changes(c.Before, c.After))
		}
	}
	return a.show(r)
}
