package ctl

import (
	"regexp"
	"slices"
	"strings"
)

// masks are applied in order to what etcdctl prints.
var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|id|leader|raftTerm|lease)":\d{6,}`), `"$1":ID`},
	{regexp.MustCompile(`"(raft_term|raftTerm)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|dbSizeQuota)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(ClusterID|MemberID|Leader|ID|RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|DBSizeQuota|Lease)" : \d+`), `"$1" : N`},
	{regexp.MustCompile(`\b[0-9a-f]{12,16}\b`), "HEXID"},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?[kMG]?B\b`), "SIZE"},
	{regexp.MustCompile(`took( = | )[0-9.]+(ns|µs|ms|s)`), "took${1}TIME"},
	{regexp.MustCompile(`"took":"[^"]+"`), `"took":"TIME"`},
	{regexp.MustCompile(`remaining\(\d+s\)`), "remaining(TIME)"},
	{regexp.MustCompile(`"ts":"[^"]+"`), `"ts":"TIME"`},
	{regexp.MustCompile(`"(timestamp|time)":"[^"]+"`), `"$1":"TIME"`},
	{regexp.MustCompile(`0x[0-9a-f]{6,}`), "POINTER"},
	// etcd's members learn of a token one after the other; etcdctl then asks again.
	{regexp.MustCompile(`(?m)^.*"retrying of unary invoker failed".*invalid auth token.*\n`), ""},
	// Hashes of files and histories: these hold lease ids, which servers choose.
	{regexp.MustCompile(`"(hash|totalSize)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(Hash|Size)" : \d+`), `"$1" : N`},
	{regexp.MustCompile(`│ +[0-9a-f]{6,8} │`), "│ HASH │"},
	{regexp.MustCompile(`(?m)^[0-9a-f]{6,8}, `), "HASH, "},
	{regexp.MustCompile(`(?m)^\d{6,10}, `), "HASH, "},
	// etcdctl's own logger: file positions do not differ, times do.
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d{4}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z`), "TIME"},
}

// statusColumns takes term and indexes out of endpoint status's simple and table
// rows: they are the three columns after "is learner".
var statusColumns = regexp.MustCompile(`((?:true|false)(?:, | │ )(?:true|false)(?:, | │ ))\d+(, | │ )\d+(, | │ )\d+`)

// spaces and rules of a table depend on the width of what was masked.
var (
	tableRule = regexp.MustCompile(`[─┬┼┴├┤┌┐└┘]{2,}`)
	spaces    = regexp.MustCompile(` {2,}`)
	percent   = regexp.MustCompile(`\d+%`)
	elements  = strings.NewReplacer("},{", "},\n{", "[{", "[\n{", "}]", "}\n]", "}},", "}},\n")
)

func mask(command, s string) string {
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.to)
	}
	s = tableRule.ReplaceAllString(s, "──")
	if strings.HasPrefix(command, "snapshot status") {
		return spaces.ReplaceAllString(s, " ")
	}
	if !strings.HasPrefix(command, "endpoint") && !strings.HasPrefix(command, "member") {
		return s
	}
	s = spaces.ReplaceAllString(s, " ")
	s = statusColumns.ReplaceAllString(s, "${1}N${2}N${3}N")
	s = percent.ReplaceAllString(s, "P%")
	// Members come in the order of their ids, and any of them may lead.
	lines := strings.SplitAfter(elements.Replace(s), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], ",\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
