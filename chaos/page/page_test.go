package page

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/workload"
)

// TestPage draws a history with one of each: everything is there, and nothing is
// asked of the network.
func TestPage(t *testing.T) {
	h := workload.Make(1, 2000, 8)
	h.Replay, h.Healed = "chaos <again>", h.End/2
	h.Config = map[string]string{"mix": "kubernetes"}
	h.Faults = []*history.Fault{{ID: 1, Kind: "kill-leader", Member: 1, Text: "kill a", Begin: h.End / 4, End: h.End / 3}, {ID: 2, Kind: "stall", Begin: h.End / 4}}
	h.Leaders = []history.Leader{{At: 1, Member: 1, Leader: 1, Term: 2}, {At: h.End / 4, Member: 2, Leader: 2, Term: 3}}
	for at := time.Duration(0); at < h.End; at += 20 * time.Millisecond {
		h.Probes = append(h.Probes, history.Probe{Member: 2, Call: at, Return: at + time.Millisecond, OK: at > h.End/3})
		h.Samples = append(h.Samples, history.Sample{At: at, Member: 2, RSS: 50 << 20})
	}
	h.Verdicts = []history.Verdict{{Oracle: "O1", Took: time.Second}, {Oracle: "O4", Findings: []string{"op <7> is lost"}}}
	var b bytes.Buffer
	if err := Write(&b, h); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	for _, want := range []string{
		"1 finding<", "op &lt;7&gt; is lost", "chaos &lt;again&gt;", "kubernetes", "2 000", `class="leads"`, `class="down"`, `class="heat"`,
		`class="lag median"`, `class="memory m1"`, `class="healed"`, `class="band"`, "kill a", "</html>",
	} {
		if !strings.Contains(strings.ReplaceAll(out, "\u202f", " "), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if found := regexp.MustCompile(`(?:src|href)=|https?://|@import|url\(`).FindAllString(out, -1); len(found) > 0 {
		t.Errorf("the page asks for %v", found)
	}
}

// TestEmptyPage: a run that was killed at once has a page too.
func TestEmptyPage(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, &history.History{}); err != nil || !strings.Contains(b.String(), "not judged") {
		t.Errorf("%v", err)
	}
}
