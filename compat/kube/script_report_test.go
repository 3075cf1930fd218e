package kube

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// readKnown reads the differences that there are for a reason: a line with the
// reason, which begins with #, then the steps.
func readKnown(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	reason := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if text, ok := strings.CutPrefix(line, "#"); ok {
			reason = strings.TrimSpace(text)
		} else if line != "" {
			out[line] = reason
		}
	}
	return out, lines.Err()
}

// scriptReport is the text of docs/reports/kubectl.md.
func scriptReport(name string, outcomes []outcome, known map[string]string) string {
	other := map[string]string{"resource": "`kvd --listen-resource-urls`", "kvd": "a kube-apiserver over `kvd`", "etcd": "a second kube-apiserver over etcd"}[name]
	var sections []string
	same, all := map[string]int{}, map[string]int{}
	agree, explained := 0, 0
	var wrong strings.Builder
	for _, o := range outcomes {
		section := o.step.Section
		if all[section] == 0 {
			sections = append(sections, section)
		}
		all[section]++
		if o.left == o.right {
			same[section]++
			agree++
			continue
		}
		reason, ok := known[o.step.Line]
		if !ok {
			reason = "**not explained**"
		} else {
			explained++
		}
		fmt.Fprintf(&wrong, "* %s: `kubectl %s`: %s\n", section, o.step.Line, reason)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# kubectl against the resource layer and against kube-apiserver

Written by `+"`make -C compat kube-script RIGHT=%s REPORT=FILE`"+`: kubectl 1.36.3 runs %d commands, one after the other
(`+"`compat/kube/testdata/script/script.txt`"+`), against a kube-apiserver 1.36.3 over etcd and against %s, with
Kubernetes' own controllers before both, and what they print and their exit codes are compared; times, uids and the like are masked
(`+"`compat/kube/mask.go`"+`). The run fails on a difference that `+"`known.txt`"+` beside the script does not explain.

| date | commit | machine | commands | same | explained |
|---|---|---|--:|--:|--:|
| %s | %s | %s | %d | %d | %d |

| section | commands | same |
|---|--:|--:|
`, name, len(outcomes), other, time.Now().UTC().Format(time.DateOnly), commit(), machine(), len(outcomes), agree, explained)
	for _, section := range sections {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", section, all[section], same[section])
	}
	if wrong.Len() > 0 {
		b.WriteString("\nDifferent:\n\n" + wrong.String())
	}
	return b.String()
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func machine() string {
	model := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo") // elsewhere the architecture has to do
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d CPUs, %s", runtime.NumCPU(), model)
}
