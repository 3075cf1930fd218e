package object

import (
	"fmt"
	"strings"
)

// Labels are an object's labels, as label selectors ask for them. They are one piece
// of memory, each name and each value with a zero byte behind it, where a map would take
// several and four times the bytes.
type Labels string

const labelEnd = "\x00"

// parseLabels reads an encoded object of strings.
func parseLabels(raw []byte) (Labels, error) {
	if string(raw) == "null" {
		return "", nil
	}
	var all strings.Builder
	all.Grow(len(raw))
	var failed error
	ok := Members(raw, func(name []byte, at, end int) bool {
		var n, v string
		if n, failed = unescaped(name); failed == nil {
			v, failed = text(raw[at:end])
		}
		if failed != nil {
			return false
		}
		// What has a zero byte is no label that a selector can name.
		if !strings.Contains(n, labelEnd) && !strings.Contains(v, labelEnd) {
			for _, part := range [...]string{n, labelEnd, v, labelEnd} {
				all.WriteString(part)
			}
		}
		return true
	})
	if !ok && failed == nil {
		failed = fmt.Errorf("no labels: %.20s", raw)
	}
	return Labels(strings.Clone(all.String())), failed
}

// Lookup returns the value of a label, and whether there is one.
func (l Labels) Lookup(name string) (value string, ok bool) {
	for rest := string(l); rest != ""; {
		var n, v string
		n, rest, _ = strings.Cut(rest, labelEnd)
		v, rest, _ = strings.Cut(rest, labelEnd)
		if n == name {
			return v, true
		}
	}
	return "", false
}

// Get returns the value of a label; empty when there is none.
func (l Labels) Get(name string) string {
	value, _ := l.Lookup(name)
	return value
}

// Has reports whether there is such a label.
func (l Labels) Has(name string) bool {
	_, ok := l.Lookup(name)
	return ok
}
