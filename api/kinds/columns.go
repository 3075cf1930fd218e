package kinds

import (
	"strings"
	"time"
)

// Column is a column of the table in which kubectl shows objects of a kind.
type Column struct {
	Name string // as in a Table: "Up-to-date"; kubectl prints it in capitals
	Type string // string, integer, boolean or date
	// Wide columns are printed with -o wide only (priority 1 in a Table).
	Wide bool
	cell func(row) any
}

// row is an object that is being shown.
type row struct {
	View
	now  time.Time
	wide bool
}

// Columns returns the columns of a kind, in any version of its group: those that
// kubectl prints for a built-in one, name and age for others. Do not change them.
func Columns(apiVersion, kind string) []Column {
	group, _ := SplitAPIVersion(apiVersion)
	if c := layouts()[group+" "+kind]; c != nil {
		return c
	}
	if Lookup(apiVersion, kind) != nil {
		return plainColumns
	}
	return customColumns
}

// Cells returns an object's cells, one for each column, as strings, int64 and
// bool. Spans of time end now. wide says that nothing is to be cut short.
func Cells(columns []Column, object map[string]any, now time.Time, wide bool) []any {
	out := make([]any, len(columns))
	for i, c := range columns {
		out[i] = c.cell(row{object, now, wide})
	}
	return out
}

var (
	nameColumn    = text("Name", "metadata.name")
	ageColumn     = Column{"Age", "string", false, func(r row) any { return r.since("metadata.creationTimestamp") }}
	plainColumns  = []Column{nameColumn, text("Created At", "metadata.creationTimestamp").called("date")}
	customColumns = []Column{nameColumn, ageColumn}
)

// called makes a column say another type than its cells have, as some of a kube-apiserver's do.
func (c Column) called(kind string) Column {
	c.Type = kind
	return c
}

// since is how long ago the time at a path was.
func (r row) since(path string) string {
	t := r.Time(path)
	if t.IsZero() {
		return "<unknown>"
	}
	return Age(r.now.Sub(t))
}

// text, integer, boolean and size are columns of what is at a path; the first
// with something that stands for nothing.
func text(name, path string, nothing ...string) Column {
	return Column{name, "string", false, func(r row) any { return or(r.Text(path), strings.Join(nothing, "")) }}
}

func integer(name, path string) Column {
	return Column{name, "integer", false, func(r row) any { return r.Int(path) }}
}

func boolean(name, path string, absent bool) Column {
	return Column{name, "boolean", false, func(r row) any {
		if r.At(path) == nil {
			return absent
		}
		return r.Flag(path)
	}}
}

func size(name, path string) Column {
	return Column{name, "integer", false, func(r row) any { return int64(r.Size(path)) }}
}

// made is a column of text that a function makes.
func made(name string, cell func(row) string) Column {
	return Column{name, "string", false, func(r row) any { return cell(r) }}
}

// wide makes columns that -o wide alone shows.
func wide(columns ...Column) []Column {
	for i := range columns {
		columns[i].Wide = true
	}
	return columns
}

// containers are columns of the containers and their images in the template of
// pods at a path.
func containers(path string) []Column {
	each := func(name, field string) Column {
		return made(name, func(r row) string {
			var out []string
			for _, c := range r.List(path + ".spec.containers") {
				out = append(out, c.Text(field))
			}
			return strings.Join(out, ",")
		})
	}
	return []Column{each("Containers", "name"), each("Images", "image")}
}

// ofTemplate are the wide columns of what makes pods: the template's containers
// and the selector, if it has a way to print one.
func ofTemplate(path string, selector func(row) string) []Column {
	columns := containers(path)
	if selector != nil {
		columns = append(columns, made("Selector", selector))
	}
	return wide(columns...)
}

// labelSelector prints the selector at a path.
func labelSelector(path string) func(row) string {
	return func(r row) string { return or(selector(r.Sub(path)), none) }
}

// columns puts name before and age behind the columns of a kind.
func columns(between ...Column) []Column {
	return append(append([]Column{nameColumn}, between...), ageColumn)
}
