package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Difference is one place where two objects differ. A side that has nothing
// there is empty.
type Difference struct {
	Path        string // as jsonpath writes it, with * for an index
	Left, Right string
}

func (d Difference) String() string {
	side := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	return fmt.Sprintf("%s: %s, %s", d.Path, side(d.Left), side(d.Right))
}

// Parse reads an object, with its numbers as they are written.
func Parse(text string) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	var out map[string]any
	err := d.Decode(&out)
	return out, err
}

// Differences compares two parsed values.
func Differences(left, right any) []Difference { return differences(nil, "", left, right) }

func differences(to []Difference, path string, left, right any) []Difference {
	switch l := left.(type) {
	case map[string]any:
		r, ok := right.(map[string]any)
		if !ok {
			break
		}
		all := maps.Clone(l)
		maps.Copy(all, r)
		for _, k := range slices.Sorted(maps.Keys(all)) {
			at := path + "." + k
			a, inLeft := l[k]
			b, inRight := r[k]
			if inLeft && inRight {
				to = differences(to, at, a, b)
				continue
			}
			to = append(to, Difference{at, sideText(a, inLeft), sideText(b, inRight)})
		}
		return to
	case []any:
		r, ok := right.([]any)
		if !ok || len(l) != len(r) {
			break
		}
		for i := range l {
			to = differences(to, path+"[*]", l[i], r[i])
		}
		return to
	}
	if a, b := sideText(left, true), sideText(right, true); a != b {
		to = append(to, Difference{path, a, b})
	}
	return to
}

func sideText(v any, there bool) string {
	if !there {
		return ""
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(b.String(), "\n")
}
