package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/api/kinds"
)

// show prints objects in the form that was asked for. single says that one key
// was asked for, not a list.
func (o *objects) show(ctx context.Context, a *app, list []*object, single bool) error {
	switch a.output {
	case outName:
		for _, x := range list {
			fmt.Fprintln(a.out, x.resourceName())
		}
		return nil
	case outRaw:
		for _, x := range list {
			a.out.Write(x.kv.Value)
		}
		return nil
	case outSimple, outTable, outWide:
		o.tables(ctx, a, list)
		return a.reportObjects(list, false)
	}
	var items []any
	for _, x := range list {
		if x.is != nil {
			items = append(items, x.is.Fields)
		}
	}
	if items == nil {
		items = []any{}
	}
	var value any = map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}, "items": items}
	if single && len(items) == 1 {
		value = items[0]
	}
	if !single || len(items) == 1 {
		if err := a.document(value); err != nil {
			return err
		}
	}
	return a.reportObjects(list, true)
}

// document prints a value as kubectl prints an object.
func (a *app) document(value any) error {
	var b []byte
	var err error
	switch a.output {
	case outYAML:
		b, err = yaml.Marshal(value)
	case outJSON:
		if b, err = json.MarshalIndent(value, "", "    "); err == nil {
			b = append(b, '\n')
		}
	default:
		return a.template.Execute(a.out, value)
	}
	if err != nil {
		return err
	}
	_, err = a.out.Write(b)
	return err
}

// group are objects that are shown in one table.
type group struct {
	columns    []kinds.Column // nil: the values are not readable
	namespaced bool
	leased     bool
	list       []*object
}

// group makes the group that an object belongs to, still without it, and says
// what is the same for all of that group.
func (x *object) group() (key string, g *group) {
	if x.is == nil {
		return "?" + x.kind, &group{}
	}
	return x.is.APIVersion + " " + x.kind, &group{columns: kinds.Columns(x.is.APIVersion, x.kind)}
}

// tables prints a table for each kind, in the order in which the kinds appear.
func (o *objects) tables(ctx context.Context, a *app, list []*object) {
	now := time.Now()
	for i, g := range groups(list) {
		o.define(ctx, a, g)
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		wide := a.output == outWide
		rows := make([][]string, len(g.list))
		for i, x := range g.list {
			rows[i] = g.row(x, now, wide)
		}
		table(a.out, g.head(wide), rows)
	}
}

func groups(list []*object) (out []*group) {
	by := map[string]*group{}
	for _, x := range list {
		key, fresh := x.group()
		g := by[key]
		if g == nil {
			g = fresh
			by[key] = g
			out = append(out, g)
		}
		g.namespaced = g.namespaced || x.namespace != ""
		g.leased = g.leased || x.kv.Lease != 0
		g.list = append(g.list, x)
	}
	return out
}

// define gives custom objects the columns of their definition, which is beside
// them in the store. Whoever may not read it sees name and age.
func (o *objects) define(ctx context.Context, a *app, g *group) {
	x := g.list[0]
	if x.is == nil || kinds.Lookup(x.is.APIVersion, x.kind) != nil {
		return
	}
	parts := strings.Split(strings.TrimPrefix(string(x.kv.Key), o.root+"/"), "/") // GROUP/PLURAL/…
	if len(parts) < 3 {
		return
	}
	key := kinds.ByKind("apiextensions.k8s.io/v1", "CustomResourceDefinition").Key(o.root, "", parts[1]+"."+parts[0])
	resp, err := a.read(ctx, &pb.RangeRequest{Key: []byte(key)}, false)
	if err != nil || len(resp.Kvs) != 1 {
		return
	}
	if definition, err := kinds.Decode(resp.Kvs[0].Value); err == nil {
		_, version := kinds.SplitAPIVersion(x.is.APIVersion)
		g.columns = kinds.Defined(definition.Fields, version)
	}
}

// cellText is a cell as it is printed; nothing is nothing.
func cellText(cell any) string {
	if cell == nil {
		return ""
	}
	return fmt.Sprint(cell)
}

// isName reports whether a column is the one that every table begins with.
func isName(c kinds.Column) bool { return c.Name == "Name" }

func (g *group) head(wide bool) (head []string) {
	if g.namespaced {
		head = append(head, "NAMESPACE")
	}
	head = append(head, "NAME", "KIND")
	if g.columns == nil {
		return append(head, "VALUE")
	}
	for _, c := range g.columns {
		if !isName(c) && (wide || !c.Wide) {
			head = append(head, strings.ToUpper(c.Name))
		}
	}
	if wide {
		head = append(head, "REVISION")
		if g.leased {
			head = append(head, "LEASE")
		}
	}
	return head
}

func (g *group) row(x *object, now time.Time, wide bool) (row []string) {
	if g.namespaced {
		row = append(row, x.namespace)
	}
	name := len(row)
	row = append(row, x.name, x.kind)
	if g.columns == nil {
		row = append(row, x.value())
	} else {
		cells := kinds.Cells(g.columns, x.is.Fields, now, wide)
		for i, c := range g.columns {
			switch {
			case isName(c):
				row[name] = or(cellText(cells[i]), x.name)
			case wide || !c.Wide:
				row = append(row, cellText(cells[i]))
			}
		}
		if wide {
			row = append(row, fmt.Sprint(x.kv.ModRevision))
			if g.leased {
				row = append(row, fmt.Sprintf("%x", x.kv.Lease))
			}
		}
	}
	for i := range row {
		row[i] = printable(row[i])
	}
	return row
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// printable is a cell without what could move the cursor or break the table:
// anybody who may write an object may write into it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
