// Command descriptions writes what kube-apiserver says of every type and field,
// for `kubectl explain`: the text, the values that an enumeration has, and whether
// a field is required; and what it says of the columns of tables. The form of both
// files is in server/resource/descriptions.go.
package main

import (
	"bytes"
	"compress/flate"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "descriptions FIELDS COLUMNS")
		os.Exit(2)
	}
	err := write(os.Args[1], text())
	if err == nil {
		err = write(os.Args[2], columns())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "descriptions:", err)
		os.Exit(1)
	}
}

func write(name, text string) error {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = z.Write([]byte(text))
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = os.WriteFile(name, b.Bytes(), 0o644)
	}
	return err
}

// unstable are types that are not served unless somebody asks for them, and those
// of configuration files.
var unstable = regexp.MustCompile(`\.v\d+(alpha|beta)\d+\.|^com\.|^k8s\.io\.|^io\.k8s\.kube`)

func text() string {
	all := openapi.GetOpenAPIDefinitions(func(path string) spec.Ref { return spec.MustCreateRef(path) })
	w := &writer{number: map[string]int{}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !unstable.MatchString(name) {
			w.message(name, all[name])
		}
	}
	return w.out.String()
}

// writer numbers texts: most are said of many fields.
type writer struct {
	out    strings.Builder
	number map[string]int
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

func (w *writer) text(s string) int {
	n, ok := w.number[s]
	if !ok {
		n = len(w.number)
		w.number[s] = n
		w.line("text %s", strconv.Quote(s))
	}
	return n
}

func (w *writer) message(name string, d common.OpenAPIDefinition) {
	n := w.text(d.Schema.Description)
	fields := slices.Sorted(maps.Keys(d.Schema.Properties))
	texts := make([]int, len(fields))
	for i, f := range fields {
		texts[i] = w.text(d.Schema.Properties[f].Description)
	}
	w.line("message %s %d", name, n)
	for i, f := range fields {
		line := fmt.Sprintf("%s %d", f, texts[i])
		if slices.Contains(d.Schema.Required, f) {
			line += " required"
		}
		p := d.Schema.Properties[f]
		values := p.Enum
		if p.Items != nil && p.Items.Schema != nil {
			values = append(values, p.Items.Schema.Enum...)
		}
		for _, v := range values {
			line += " " + strconv.Quote(fmt.Sprint(v))
		}
		w.line("%s", line)
	}
}
