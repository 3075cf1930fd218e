package resource

import (
	"strings"
	"time"

	"github.com/keelson-io/keelson/api/jsonpath"
	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// table makes a Table of encoded objects: what kubectl prints. meta is the list's
// metadata; empty for one object, whose own version then counts.
func (f *form) table(meta string, bodies [][]byte) []byte {
	columns := f.kind.columns()
	if meta == "" {
		meta = "{}"
		if v := object.FindString(bodies[0], "metadata", "resourceVersion"); v != "" {
			meta = `{"resourceVersion":` + string(object.AppendString(nil, v)) + `}`
		}
	}
	b := []byte(`{"kind":"Table","apiVersion":"` + metaGroup + "/" + f.version + `","metadata":` + meta + `,"columnDefinitions":[`)
	for i, c := range columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = object.AppendValue(b, object.Object{"name": c.Name, "type": c.Type, "format": c.Format, "description": c.Description, "priority": c.Priority})
	}
	b = append(b, `],"rows":[`...)
	for i, body := range bodies {
		if i > 0 {
			b = append(b, ',')
		}
		b = f.appendRow(b, columns, body)
	}
	return append(b, ']', '}')
}

func (f *form) appendRow(b []byte, columns []Column, stored []byte) []byte {
	shown := stored // all versions have its columns
	if f.kind.From == nil {
		shown = f.versioned(stored)
	}
	b = object.AppendValue(append(b, `{"cells":`...), f.kind.cells(columns, shown, f.now))
	switch f.include {
	case "None":
		b = append(b, `,"object":null`...)
	case "Object":
		b = append(append(b, `,"object":`...), f.versioned(stored)...)
	default:
		b = appendPartial(append(b, `,"object":`...), stored, f.version)
	}
	return append(b, '}')
}

// builtinColumns are what kubectl shows of a built-in kind.
func builtinColumns(k *Kind) (out []Column) {
	group, _ := splitAPIVersion(k.storedVersion())
	for _, c := range kinds.Columns(k.storedVersion(), k.Name) {
		field := " " + strings.ReplaceAll(c.Name, " ", "_")
		d, own := columnDescriptions()["table."+group+"."+k.Name+field]
		if !own {
			d = columnDescriptions()["table.default"+field]
		}
		column := Column{Name: c.Name, Type: c.Type, Description: d.text}
		if c.Wide {
			column.Priority = 1
		}
		if c.Name == "Name" {
			column.Format = "name"
		}
		out = append(out, column)
	}
	return out
}

// columns are the kind's, or name and age.
func (k *Kind) columns() []Column {
	if k.Layout != nil {
		k.showing.Do(func() { k.shown = builtinColumns(k) })
		return k.shown
	}
	if k.Columns != nil {
		return k.Columns
	}
	return []Column{nameColumn, ageColumn}
}

var (
	nameColumn = Column{Name: "Name", Type: "string", Format: "name", Description: "Name must be unique within a namespace.", Path: mustPath("{.metadata.name}")}
	ageColumn  = Column{Name: "Age", Type: "date", Description: "How long ago the object was created.", Path: mustPath("{.metadata.creationTimestamp}")}
)

func mustPath(text string) *jsonpath.Template {
	t, err := jsonpath.Parse(text)
	if err != nil {
		panic("resource: a path of the source: " + err.Error())
	}
	return t
}

// cells are an encoded object's, one for each column.
func (k *Kind) cells(columns []Column, body []byte, now int64) []any {
	o, err := kinds.Decode(body)
	if err != nil {
		return make([]any, len(columns)) // what is stored may be anything
	}
	if k.Layout != nil {
		return kinds.Cells(kinds.Columns(k.storedVersion(), k.Name), o.Fields, time.Unix(now, 0), true)
	}
	out := make([]any, len(columns))
	for i := range columns {
		out[i] = columns[i].cell(o.Fields, now)
	}
	return out
}

// cell is the column's value for an object.
func (c *Column) cell(o object.Object, now int64) any {
	found, err := c.Path.Find(o)
	if err != nil || len(found) == 0 {
		return nil
	}
	switch c.Type {
	case "date":
		s, _ := found[0].(string)
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return "<unknown>"
		}
		return kinds.Age(time.Unix(now, 0).Sub(t))
	case "integer":
		if n, ok := object.Whole(found[0]); ok {
			return n
		}
		return nil
	case "string":
		return object.Text(found[0])
	}
	return found[0]
}
