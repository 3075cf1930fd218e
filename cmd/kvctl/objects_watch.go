package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// objectWatch prints events as changes of objects.
type objectWatch struct {
	objects
	kind   string // of the last line
	widths []int  // of its columns; they only grow
}

// span is the range of a watch: a key that is a collection stands for what is
// below it. The previous values are needed to show what was deleted.
func (o *objects) span(key, end []byte) (from, to []byte) {
	if len(end) == 0 && o.collection(string(key)) {
		key = []byte(strings.TrimSuffix(string(key), "/") + "/")
		return key, prefixEnd(key)
	}
	return key, end
}

func (w *objectWatch) event(a *app, e *mvccpb.Event) error {
	what, kv := "MODIFIED", e.Kv
	switch {
	case e.Type == mvccpb.Event_DELETE:
		what = "DELETED"
		if e.PrevKv != nil {
			// As a kube-apiserver: the last state, at the revision that ended it.
			kv = e.PrevKv
			kv.ModRevision = e.Kv.ModRevision
		}
	case e.Kv.CreateRevision == e.Kv.ModRevision:
		what = "ADDED"
	}
	x := w.read(kv)
	switch a.output {
	case outName:
		fmt.Fprintln(a.out, x.resourceName())
	case outRaw:
		a.out.Write(kv.Value)
	case outSimple, outTable, outWide:
		w.line(a, what, x)
	default:
		if x.is == nil {
			return a.reportObjects([]*object{x}, true)
		}
		if err := a.change(what, x); err != nil {
			return err
		}
	}
	return a.reportObjects([]*object{x}, false)
}

// change prints an event with its object; each JSON on one line, each YAML as a
// document.
func (a *app) change(what string, x *object) error {
	event := map[string]any{"type": what, "object": x.is.Fields}
	switch a.output {
	case outJSON:
		b, err := json.Marshal(event)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", b)
		return nil
	case outYAML:
		fmt.Fprintln(a.out, "---")
		return a.document(event)
	}
	if err := a.document(x.is.Fields); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.out)
	return err
}

// line prints a line of a table that is never finished: its columns become wider
// when they must. Another kind begins another table.
func (w *objectWatch) line(a *app, what string, x *object) {
	wide := a.output == outWide
	key, g := x.group()
	g.namespaced, g.leased = x.namespace != "", true
	head := append([]string{"EVENT"}, g.head(wide)...)
	row := append([]string{what}, g.row(x, time.Now(), wide)...)
	if key != w.kind || len(head) != len(w.widths) {
		w.kind, w.widths = key, make([]int, len(head))
		w.grow(head, row, []string{"MODIFIED"}) // the longest event
		w.print(a, head)
	} else {
		w.grow(row)
	}
	w.print(a, row)
}

func (w *objectWatch) grow(rows ...[]string) {
	for _, row := range rows {
		for i, cell := range row {
			w.widths[i] = max(w.widths[i], utf8.RuneCountInString(cell))
		}
	}
}

func (w *objectWatch) print(a *app, row []string) {
	var b strings.Builder
	for i, cell := range row {
		b.WriteString(or(cell, "-"))
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", w.widths[i]+3-utf8.RuneCountInString(or(cell, "-"))))
		}
	}
	fmt.Fprintln(a.out, b.String())
}
