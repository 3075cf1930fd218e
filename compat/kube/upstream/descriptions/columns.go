package main

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/controlplane" // registers all groups
	"k8s.io/kubernetes/pkg/printers"
	"k8s.io/kubernetes/pkg/printers/internalversion"
)

// columns are the descriptions of the columns of tables: a message table.GROUP.KIND for each
// kind that has columns of its own, whose fields are the columns, with _ for blanks, and
// table.default for the columns of others.
func columns() string {
	w := &writer{number: map[string]int{}}
	all := metav1.ObjectMeta{}.SwaggerDoc()
	w.table("default", []metav1.TableColumnDefinition{{Name: "Name", Description: all["name"]}, {Name: "Created At", Description: all["creationTimestamp"]},
		{Name: "Age", Description: all["creationTimestamp"]}})
	var internal []schema.GroupVersionKind
	for gvk := range legacyscheme.Scheme.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal && !strings.HasSuffix(gvk.Kind, "List") {
			internal = append(internal, gvk)
		}
	}
	slices.SortFunc(internal, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
	tables := printers.NewTableGenerator().With(internalversion.AddHandlers)
	for _, gvk := range internal {
		o, err := legacyscheme.Scheme.New(gvk)
		if err != nil {
			continue
		}
		if t, err := tables.GenerateTable(o, printers.GenerateOptions{Wide: true}); err == nil {
			w.table(gvk.Group+"."+gvk.Kind, t.ColumnDefinitions)
		}
	}
	return w.out.String()
}

func (w *writer) table(name string, columns []metav1.TableColumnDefinition) {
	texts := make([]int, len(columns))
	for i, c := range columns {
		texts[i] = w.text(c.Description)
	}
	w.line("message table.%s %d", name, texts[0])
	for i, c := range columns {
		w.line("%s %d", strings.ReplaceAll(c.Name, " ", "_"), texts[i])
	}
}
