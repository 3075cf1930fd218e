package kube

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// exchange is what both servers said to the same request, or what is compared of
// it: a resource of a discovery document, a schema, the table of a kind.
type exchange struct {
	section, title string
	differences    []Difference
	left           any // as it is compared
}

// comparison collects exchanges of two servers.
type comparison struct {
	left, right *Caller
	exchanges   []exchange
}

// TestRequests sends the same HTTP requests to a kube-apiserver over etcd and to
// kvd's resource layer (RIGHT=kvd: to a kube-apiserver over kvd), and compares the answers.
func TestRequests(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	name, err := otherSide()
	if err != nil {
		t.Fatal(err)
	}
	c := &comparison{}
	starting, started := context.WithTimeout(ctx, startLimit)
	defer started()
	for to, side := range map[**Caller]*side{&c.left: startServer(starting, t, "etcd"), &c.right: startServer(starting, t, name)} {
		if *to, err = NewCaller(side.target); err != nil {
			t.Fatal(err)
		}
	}
	only := os.Getenv("SECTIONS")
	c.documents(ctx, t, only)
	files, err := filepath.Glob("testdata/requests/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) == "known.txt" {
			continue
		}
		requests, err := ReadRequests(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range requests {
			if only == "" || strings.Contains(only, r.Section) || r.Section == "Ground" {
				c.ask(ctx, r)
			}
		}
	}
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	known, err := readKnown("testdata/requests/known.txt")
	if err != nil {
		t.Fatal(err)
	}
	if name != "resource" {
		known = nil
	}
	c.judge(t, known, only == "")
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(c.report(known)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// both sends a request to both servers at once.
func (c *comparison) both(ctx context.Context, r Request) (left, right map[string]any) {
	var a, b Answer
	var wg sync.WaitGroup
	wg.Go(func() { a = c.left.Do(ctx, r) })
	wg.Go(func() { b = c.right.Do(ctx, r) })
	wg.Wait()
	return a.Comparable(), b.Comparable()
}

func (c *comparison) ask(ctx context.Context, r Request) {
	left, right := c.both(ctx, r)
	c.note(r.Section, r.Title, left, right)
}

// note adds what is compared; nil is what a server does not have.
func (c *comparison) note(section, title string, left, right any) {
	e := exchange{section: section, title: title, left: left}
	if left == nil || right == nil {
		e.differences = []Difference{{"", sideText(left, left != nil), sideText(right, right != nil)}}
	} else {
		e.differences = Differences(left, right)
	}
	c.exchanges = append(c.exchanges, e)
}

// get asks both for a path.
func (c *comparison) get(ctx context.Context, path, accept string) (left, right map[string]any) {
	return c.both(ctx, Request{method: http.MethodGet, path: path, header: http.Header{"Accept": {accept}}})
}

// excuse is the reason for a difference of an exchange, if there is a known one: its
// title, or "title: path" for one of its differences, with * at the end for any rest,
// and "*: path" for any title.
func excuse(known map[string]string, title string, d Difference) (line, reason string) {
	for _, k := range slices.Sorted(maps.Keys(known)) {
		reason := known[k]
		begin, open := strings.CutSuffix(k, "*")
		for _, name := range []string{title, title + ": " + d.Path, "*: " + d.Path} {
			if k == name || open && strings.HasPrefix(name, begin) {
				return k, reason
			}
		}
	}
	return "", ""
}

// judge fails the test for what differs without a reason, and for a reason that is
// none any more.
func (c *comparison) judge(t *testing.T, known map[string]string, all bool) {
	used := map[string]bool{}
	same := 0
	for _, e := range c.exchanges {
		if len(e.differences) == 0 {
			same++
			continue
		}
		var unknown []string
		for _, d := range e.differences {
			line, _ := excuse(known, e.title, d)
			if used[line] = true; line == "" {
				unknown = append(unknown, cutText(d.String()))
			}
		}
		if unknown != nil {
			t.Errorf("%s: %s\n%s", e.section, e.title, strings.Join(unknown, "\n"))
		}
	}
	for line, reason := range known {
		if all && !used[line] && !strings.HasPrefix(reason, "now and then") {
			t.Errorf("the servers agree about %q, testdata/requests/known.txt says that they differ", line)
		}
	}
	t.Logf("%d of %d answers are the same", same, len(c.exchanges))
	if os.Getenv("SHOW") != "" {
		for _, e := range c.exchanges {
			t.Logf("%s: %s: %s", e.section, e.title, cutText(sideText(e.left, true)))
		}
	}
}

func cutText(s string) string {
	if len(s) > 1500 {
		return s[:1500] + "…"
	}
	return s
}

// report is the text of docs/reports/requests.md.
func (c *comparison) report(known map[string]string) string {
	var sections, reasons []string
	count := map[string][3]int{} // asked, same, explained
	different := map[string][]string{}
	total := [3]int{}
	for _, e := range c.exchanges {
		if count[e.section][0] == 0 {
			sections = append(sections, e.section)
		}
		at := 2
		if len(e.differences) == 0 {
			at = 1
		}
		why := map[string]Difference{}
		for _, d := range e.differences {
			_, reason := excuse(known, e.title, d)
			if reason == "" {
				reason, at = "**not explained**", 0
			}
			if _, said := why[reason]; !said {
				why[reason] = d
			}
		}
		for reason, d := range why {
			if different[reason] == nil {
				reasons = append(reasons, reason)
			}
			different[reason] = append(different[reason], fmt.Sprintf("%s (%s)", e.title, strings.Join(strings.Fields(cell(d.String())), " ")))
		}
		n := count[e.section]
		n[0]++
		total[0]++
		if at > 0 {
			n[at]++
			total[at]++
		}
		count[e.section] = n
	}
	var b strings.Builder
	fmt.Fprintf(&b, requestsHead, time.Now().UTC().Format(time.DateOnly), commit(), machine(), total[0], total[1], total[2])
	for _, s := range sections {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", s, count[s][0], count[s][1], count[s][2])
	}
	b.WriteString("\n## What differs, and why\n\nOf each answer the first difference: where, what a kube-apiserver says, what the layer says.\n")
	slices.Sort(reasons)
	for _, reason := range reasons {
		titles := different[reason]
		more := ""
		const most = 10
		if len(titles) > most {
			titles, more = titles[:most], fmt.Sprintf("\n- and %d more", len(titles)-most)
		}
		fmt.Fprintf(&b, "\n### %s\n\n- %s%s\n", reason, strings.Join(titles, "\n- "), more)
	}
	return b.String()
}

const requestsHead = `# HTTP requests to the resource layer and to kube-apiserver

Written by ` + "`make -C compat kube-requests REPORT=FILE`" + `: the same requests go to a kube-apiserver 1.36.3 over etcd and to ` + "`kvd --listen-resource-urls`" + `, and
codes, headers and bodies of the answers are compared, field by field, without what depends on time or chance. The requests stand in ` + "`compat/kube/testdata/requests`" + `,
beside the reasons for the differences that there are (` + "`known.txt`" + `); any other fails the run. Documents are compared piece by piece: each resource of discovery,
each path and each schema's name of OpenAPI, the table of each kind.

| date | commit | machine | compared | same | different with a reason |
|---|---|---|--:|--:|--:|
| %s | %s | %s | %d | %d | %d |

| section | compared | same | different with a reason |
|---|--:|--:|--:|
`

// cell fits a text into a line.
func cell(s string) string {
	s = strings.NewReplacer("\n", " ", "`", "'").Replace(s)
	if len(s) > 160 {
		s = strings.ToValidUTF8(s[:160], "") + "…"
	}
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func TestParseRequest(t *testing.T) {
	r, err := parseRequest([]string{"- a title", "& @alice POST /a?b=c", "Accept: text/plain", "{", "}", "= rv .metadata.resourceVersion"})
	if err != nil || r.Title != "a title" || !r.beside || r.user != "alice" || r.method != "POST" || r.path != "/a?b=c" || r.header.Get("Accept") != "text/plain" ||
		r.body != "{\n}" || len(r.keep) != 1 || r.keep[0] != [2]string{"rv", ".metadata.resourceVersion"} {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range [][]string{{"GET /a"}, {"- title"}, {"- title", "GET"}, {"- title", "GET /a", "= rv"}} {
		if _, err := parseRequest(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestComparable(t *testing.T) {
	a := Answer{Code: 200, Body: []byte(`{"type":"ADDED","object":{"metadata":{"uid":"1","resourceVersion":"5","name":"made-bcdfg"}}}`)}
	b := Answer{Code: 200, Body: []byte(`{"type":"ADDED","object":{"metadata":{"uid":"2","resourceVersion":"","name":"made-xcdfg"}}}`)}
	got := Differences(a.Comparable(), b.Comparable())
	if len(got) != 1 || got[0].Path != ".body.event 0.object.metadata.resourceVersion" {
		t.Errorf("%v", got)
	}
	known := map[string]string{"title: .body*": "why", "other": "because"}
	if line, _ := excuse(known, "title", got[0]); line != "title: .body*" {
		t.Errorf("%q", line)
	}
	if line, _ := excuse(known, "another", got[0]); line != "" {
		t.Errorf("%q", line)
	}
}
