package kinds

import (
	"strings"

	"github.com/keelson-io/keelson/api/jsonpath"
)

// Defined returns the columns that a custom resource definition gives a version
// of its kind: name and what it says, or name and age if it says nothing. A
// column whose path cannot be read is left out.
func Defined(definition map[string]any, version string) []Column {
	for _, v := range View(definition).List("spec.versions") {
		if v.Text("name") != version {
			continue
		}
		columns := []Column{nameColumn}
		for _, c := range v.List("additionalPrinterColumns") {
			path, err := jsonpath.Parse("{" + c.Text("jsonPath") + "}")
			if err != nil {
				continue
			}
			kind := c.Text("type")
			columns = append(columns, Column{c.Text("name"), kind, c.Int("priority") > 0, func(r row) any { return r.defined(path, kind) }})
		}
		if len(columns) > 1 {
			return columns
		}
	}
	return customColumns
}

// defined is what a path finds, as its column's type has it; nil for nothing.
func (r row) defined(path *jsonpath.Template, kind string) any {
	found, err := path.Find(map[string]any(r.View))
	if err != nil || len(found) == 0 || found[0] == nil {
		return nil
	}
	switch v := found[0].(type) {
	case string:
		if kind == "date" {
			return row{View{"at": v}, r.now, r.wide}.since("at")
		}
		if kind == "string" {
			return v
		}
	case float64:
		if kind == "integer" {
			return int64(v)
		}
		return v
	case int64, bool:
		return v
	}
	var text strings.Builder
	if err := path.Execute(&text, map[string]any(r.View)); err != nil || kind != "string" {
		return nil
	}
	return text.String()
}
