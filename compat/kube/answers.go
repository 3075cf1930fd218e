package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Comparable is an answer as it is compared with another server's: parsed, and
// without what depends on time, chance or the address.
func (a Answer) Comparable() map[string]any {
	out := map[string]any{"code": a.Code, "header": a.Header}
	if a.Error != "" {
		out["error"] = a.Error
	}
	text := a.Body
	if strings.HasPrefix(string(text), "apiVersion: ") { // YAML, whose fields are in order
		if asJSON, err := yaml.YAMLToJSON(text); err == nil {
			text = asJSON
		}
	}
	if body := parseAll(text); body != nil {
		out["body"] = masked("", numbered(body))
	}
	return out
}

// numbered gives each event of a watch a place of its own, so that one more or less is
// one difference.
func numbered(v any) any {
	events, _ := v.([]any)
	out := map[string]any{}
	for i, e := range events {
		if at(e, "type") == nil || at(e, "object") == nil {
			return v
		}
		out[fmt.Sprintf("event %d", i)] = e
	}
	if events == nil {
		return v
	}
	return out
}

// parseAll is the value, or the values of a watch; text that is no JSON is itself.
func parseAll(b []byte) any {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var all []any
	for {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			return string(b)
		}
		all = append(all, v)
	}
	switch {
	case all == nil:
		return nil
	case len(all) == 1 && !bytes.HasPrefix(b, []byte(`{"type":`)):
		return all[0]
	}
	return all
}

// varying are fields whose values are never the same twice.
var varying = map[string]string{
	"uid": "UID", "resourceVersion": "RV", "creationTimestamp": "TIME", "deletionTimestamp": "TIME", "time": "TIME", "lastTransitionTime": "TIME",
	"continue": "TOKEN", "startTime": "TIME", "clusterIP": "ADDRESS", "eviction": "TIME", "serverAddress": "ADDRESS", "holderIdentity": "SOMEBODY",
}

// answerMasks hide the same in texts.
var answerMasks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`current: \d+`), "current: RV"},
	{regexp.MustCompile(`ResourceVersion in object meta: \d+`), "ResourceVersion in object meta: RV"},
	{regexp.MustCompile(`too old resource version: \d+ \(\d+\)`), "too old resource version: RV (RV)"},
	{regexp.MustCompile(`resourceVersion\\":\\"\d+`), `resourceVersion\":\"RV`},
	{regexp.MustCompile(`\b(made-)[bcdfghjklmnpqrstvwxz2456789]{5}\b`), "${1}XXXXX"},
	{regexp.MustCompile(`^\d+(ms|s|m|m\d+s)$`), "AGE"},
	{regexp.MustCompile(`^10\.0\.\d+\.\d+$`), "ADDRESS"},
	{regexp.MustCompile(`:3\d{4}/(TCP|UDP)`), ":PORT/$1"},
	{regexp.MustCompile(`\?hash=[0-9A-F]+`), "?hash=HASH"},
	{regexp.MustCompile(`must be no more than (\d+) (bytes|characters)`), "must be no more than $1 bytes"}, // by its version
	{regexp.MustCompile(`Bad_[bcdfghjklmnpqrstvwxz2456789]{5}`), "Bad_XXXXX"},
	{regexp.MustCompile(`late-[bcdfghjklmnpqrstvwxz2456789]{5}`), "late-"},
	{regexp.MustCompile(`in record \(\d+\)`), "in record (RV)"},
	// The object that a refused patch makes, whose fields have no order, and what differs in a specification.
	{regexp.MustCompile(`(?s)Invalid value: "\{.*\}": `), "Invalid value: OBJECT: "},
	{regexp.MustCompile(`(?s)\n@@ .*`), ""},
}

// madeUpPorts is the first of the node ports that servers choose; people choose lower ones.
const madeUpPorts = 30086

func masked(field string, v any) any {
	switch x := v.(type) {
	case map[string]any:
		for name, e := range x {
			x[name] = masked(name, e)
		}
	case []any:
		for i, e := range x {
			x[i] = masked("", e)
		}
		if field == "clusterIPs" {
			return []any{"ADDRESS"}
		}
	case json.Number:
		if n, err := x.Int64(); err == nil && strings.HasSuffix(strings.ToLower(field), "nodeport") && n >= madeUpPorts {
			return "PORT"
		}
	case string:
		if to := varying[field]; to != "" && x != "" {
			return to
		}
		if strings.HasPrefix(field, "autoscaling.alpha.kubernetes.io/") {
			return parseAll([]byte(x)) // JSON whose fields have no order
		}
		return maskText(x)
	}
	return v
}

func maskText(s string) string {
	for _, m := range answerMasks {
		s = m.re.ReplaceAllString(s, m.to)
	}
	return s
}

// sorted puts the objects of a list in the order of some of their fields, where order
// means nothing.
func sorted(list []any, fields ...string) []any {
	key := func(v any) string {
		var out []string
		for _, f := range fields {
			s, _ := at(v, f).(string)
			out = append(out, s)
		}
		return strings.Join(out, "\x00")
	}
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b any) int { return strings.Compare(key(a), key(b)) })
	return out
}
