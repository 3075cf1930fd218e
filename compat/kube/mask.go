package kube

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// masks hide what depends on time or chance in what kubectl prints. They are
// applied in order.
var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b(127\.0\.0|192\.0\.2)\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`\b10\.0\.\d+\.\d+\b`), "CLUSTERIP"},
	{regexp.MustCompile(`\b3\d{4}/(TCP|UDP)`), "NODEPORT/$1"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4}|Z)?( UTC)?`), "TIME"},
	{regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`), "TIME"},
	{regexp.MustCompile(`(resourceVersion\\*"?:\s*|Resource Version:\s*)\\*"?\d+\\*"?`), "${1}RV"},
	// What a server is built of.
	{regexp.MustCompile(`"(gitVersion|gitCommit|goVersion)": "[^"]*"`), `"$1": "BUILD"`},
	// The object that a refused patch makes: its fields have no order.
	{regexp.MustCompile(`patch: Invalid value: "(\\.|[^"\\])*"`), "patch: Invalid value: OBJECT"},
	// How often a rollout is seen on its way, and so how often its controller acts.
	{regexp.MustCompile(`(?m)^Waiting for deployment .*\n`), ""},
	{regexp.MustCompile(`(?m)^ +Normal +ScalingReplicaSet .*\n`), ""},
	{regexp.MustCompile(`/tmp/(LIVE|MERGED)-\d+/`), "/tmp/$1/"},
	{regexp.MustCompile(`/tmp/kubectl-edit-\d+\.yaml`), "/tmp/EDITED"},
	// Names that servers and controllers make up: fixed part, hash, five letters.
	{regexp.MustCompile(`\b((?:made|web|once)(?:-[0-9a-f]{8,10})?)-[bcdfghjklmnpqrstvwxz2456789]{5}\b`), "$1-XXXXX"},
	{regexp.MustCompile(`\b\d+(ms|s|m\d+s|m|h|d)\b( ago)?`), "AGE"},
	{regexp.MustCompile(`<invalid>`), "AGE"}, // the clock's fraction
	{regexp.MustCompile(` {2,}`), "  "},      // the width of columns follows what is masked
	{regexp.MustCompile(` +\n`), "\n"},
}

// Mask hides what depends on time or chance.
func Mask(s string) string {
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.to)
	}
	return s
}

// met is what kubectl says of each object that it waited for.
var met = regexp.MustCompile(`(?m)^.* condition met\n`)

// MaskStep is Mask for what a step printed. Discovery has no order that means
// something, and an object that is waited for may have gone before.
func MaskStep(s Step, printed string) string {
	if strings.HasPrefix(s.Line, "get --raw") {
		printed = ordered(printed)
	}
	printed = Mask(printed)
	if strings.HasPrefix(s.Line, "wait --for=delete") {
		printed = met.ReplaceAllString(printed, "")
	}
	if len(s.words) > 0 && (s.words[0] == "api-resources" || s.words[0] == "api-versions") {
		lines := strings.SplitAfter(printed, "\n")
		slices.Sort(lines)
		printed = strings.Join(lines, "")
	}
	return printed
}

// ordered is JSON with the fields of objects in one order, as clients read it.
func ordered(printed string) string {
	var o map[string]any
	if json.Unmarshal([]byte(printed), &o) != nil {
		return printed
	}
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return printed
	}
	return string(b) + "\n"
}
