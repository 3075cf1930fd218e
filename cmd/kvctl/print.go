package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"sigs.k8s.io/yaml"
)

// result is what a command found out, in all the forms it can be shown in.
type result struct {
	value  any             // for json and yaml
	simple func(io.Writer) // nil: the rows, separated by commas, as etcdctl does
	head   []string        // of the table
	rows   [][]string
}

// show prints a result in the form that was asked for.
func (a *app) show(r result) error {
	switch a.output {
	case outJSON:
		b, err := json.Marshal(r.value)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", b)
	case outYAML:
		b, err := yaml.Marshal(r.value)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s", b)
	case outTable, outWide:
		if r.head == nil {
			r.simple(a.out)
			return nil
		}
		table(a.out, r.head, r.rows)
	case outJSONPath:
		b, err := json.Marshal(r.value)
		if err != nil {
			return err
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var tree any
		if err := d.Decode(&tree); err != nil {
			return err
		}
		return a.template.Execute(a.out, tree)
	default:
		if r.simple != nil {
			r.simple(a.out)
			return nil
		}
		for _, row := range r.rows {
			fmt.Fprintln(a.out, strings.Join(row, ", "))
		}
	}
	return nil
}

// table prints rows in aligned columns, as kubectl does.
func table(w io.Writer, head []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			if cells[i] = strings.ReplaceAll(c, "\n", " "); c == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	t.Flush()
}

// bytesText is a key or value as it is printed.
func (a *app) bytesText(b []byte) string {
	if !a.hex {
		return string(b)
	}
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}

// size is a number of bytes as people read it.
func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	i := -1
	for f >= 999.5 && i < len(units)-1 {
		f /= 1000
		i++
	}
	return fmt.Sprintf("%.3g %cB", f, units[i])
}
