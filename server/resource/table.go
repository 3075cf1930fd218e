package resource

import (
	"fmt"
	"time"

	"github.com/keelson-io/keelson/server/resource/object"
)

// table makes a Table of encoded objects: what kubectl prints. meta is the list's
// metadata; empty for one object, whose own version then counts.
func (f *form) table(meta string, bodies [][]byte) []byte {
	columns := f.kind.columns()
	if meta == "" && len(bodies) == 1 {
		meta = `{"resourceVersion":` + string(object.AppendString(nil, object.FindString(bodies[0], "metadata", "resourceVersion"))) + `}`
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

func (f *form) appendRow(b []byte, columns []Column, body []byte) []byte {
	body = f.versioned(body)
	o, _, err := object.Decode(body)
	if err != nil {
		o = object.Object{}
	}
	cells := make([]any, len(columns))
	for i := range columns {
		cells[i] = columns[i].cell(o, f.now)
	}
	b = object.AppendValue(append(b, `{"cells":`...), cells)
	switch f.include {
	case "None":
	case "Object":
		b = append(append(b, `,"object":`...), body...)
	default:
		b = appendPartial(append(b, `,"object":`...), body, f.version)
	}
	return append(b, '}')
}

// columns are the kind's, or name and age.
func (k *Kind) columns() []Column {
	if k.Columns != nil {
		return k.Columns
	}
	return []Column{nameColumn, ageColumn}
}

var nameColumn = Column{Name: "Name", Type: "string", Format: "name", Description: "Name must be unique within a namespace.",
	Cell: func(o object.Object, _ int64) any { return object.String(o, "metadata", "name") }}

var ageColumn = Column{Name: "Age", Type: "string", Description: "CreationTimestamp is the server time when this object was created.",
	Cell: func(o object.Object, now int64) any {
		return age(object.String(o, "metadata", "creationTimestamp"), now)
	}}

// cell is the column's value for an object.
func (c *Column) cell(o object.Object, now int64) any {
	if c.Cell != nil {
		return c.Cell(o, now)
	}
	found, err := c.Path.Find(o)
	if err != nil || len(found) == 0 {
		return nil
	}
	switch c.Type {
	case "date":
		s, _ := found[0].(string)
		return age(s, now)
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

// age is how long ago a timestamp was, as kubectl writes it.
func age(stamp string, now int64) string {
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return "<unknown>"
	}
	return humanDuration(time.Duration(now-t.Unix()) * time.Second)
}

// humanDuration has two units at most, as kubectl's.
func humanDuration(d time.Duration) string {
	if s := int64(d.Seconds()); s < -1 {
		return "<invalid>"
	} else if s < 0 {
		return "0s"
	} else if s < 120 {
		return fmt.Sprintf("%ds", s)
	}
	minutes := int64(d / time.Minute)
	if minutes < 10 {
		return twoUnits(minutes, "m", int64(d/time.Second)%60, "s")
	}
	hours := int64(d / time.Hour)
	switch {
	case minutes < 180:
		return fmt.Sprintf("%dm", minutes)
	case hours < 8:
		return twoUnits(hours, "h", minutes%60, "m")
	case hours < 48:
		return fmt.Sprintf("%dh", hours)
	case hours < 192:
		return twoUnits(hours/24, "d", hours%24, "h")
	case hours < 24*365*2:
		return fmt.Sprintf("%dd", hours/24)
	case hours < 24*365*8:
		return twoUnits(hours/24/365, "y", hours/24%365, "d")
	}
	return fmt.Sprintf("%dy", hours/24/365)
}

func twoUnits(a int64, unit string, b int64, lower string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unit)
	}
	return fmt.Sprintf("%d%s%d%s", a, unit, b, lower)
}
