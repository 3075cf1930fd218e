package mvcc

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/keelson-io/keelson/api"
)

// TestWatchTranscripts runs testdata/watch: what streams are told, step by
// step. Commands:
//
//	write   one revision a line: "a=1 b=2", "a-" deletes
//	unpublished  the same, but nobody is told: what a lagging member lacks
//	restore      a snapshot with what was not published is installed
//	watch   [stream=n] [id=n] key=k [end=e|end=*] [start=r] [prev] [noput] [nodelete] [progress]
//	cancel  [stream=n] id=n
//	progress, tick, close, stats  [stream=n]
//	read    [stream=n] prints what the stream has to say now
//	forget  the recent events fall out of the log
//	compact at=r
//	damage  previous values cannot be read any more
func TestWatchTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/watch", func(t *testing.T, path string) {
		w := newWorld()
		streams := make(map[int]*recorder)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return runWatchCommand(t, w, streams, d)
		})
		for _, r := range streams {
			r.check(t, w.history())
		}
	})
}

func runWatchCommand(t *testing.T, w *world, streams map[int]*recorder, d *datadriven.TestData) string {
	n := 1
	d.MaybeScanArgs(t, "stream", &n)
	r := streams[n]
	if r == nil {
		r = record(w.hub.newStream())
		streams[n] = r
	}
	switch d.Cmd {
	case "write", "unpublished":
		return writeLines(w, d)
	case "restore":
		w.hub.reset(w, w.mu.rev, func() {})
	case "watch":
		id, err := r.watch(watchArgs(t, d))
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("id %d", id)
	case "cancel":
		var id int64
		d.ScanArgs(t, "id", &id)
		return fmt.Sprintf("%v", r.stream.Cancel(id))
	case "refuse":
		r.stream.Refuse("because")
	case "progress":
		r.stream.RequestProgress()
	case "tick":
		r.stream.Tick()
	case "close":
		r.stream.Close()
	case "stats":
		st := w.hub.statsNow()
		return fmt.Sprintf("watchers %d slow %d pending events %d groups %d", st.Watchers, st.Slow, st.Pending, len(w.hub.mu.groups))
	case "forget":
		w.hub.mu.log.clear()
	case "compact":
		var rev int64
		d.ScanArgs(t, "at", &rev)
		w.compactAt(api.Revision(rev))
	case "damage":
		w.mu.damaged = true
	case "read":
		return readLines(r)
	default:
		t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	return ""
}

func readLines(r *recorder) string {
	r.lines, r.err = nil, nil
	r.step()
	if r.err != nil {
		r.lines = append(r.lines, "error: "+r.err.Error())
	}
	if len(r.lines) == 0 {
		return "nothing"
	}
	return strings.Join(r.lines, "\n")
}

func writeLines(w *world, d *datadriven.TestData) string {
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		var ops []op
		for _, word := range strings.Fields(line) {
			if key, ok := strings.CutSuffix(word, "-"); ok {
				ops = append(ops, op{key, ""})
				continue
			}
			key, value, _ := strings.Cut(word, "=")
			ops = append(ops, op{key, value})
		}
		if d.Cmd == "unpublished" {
			w.apply(ops...)
		} else {
			w.write(ops...)
		}
	}
	return fmt.Sprintf("revision %d", w.mu.rev)
}

func watchArgs(t *testing.T, d *datadriven.TestData) WatchRequest {
	var q WatchRequest
	for _, arg := range d.CmdArgs {
		val := ""
		if len(arg.Vals) > 0 {
			val = arg.Vals[0]
		}
		switch arg.Key {
		case "stream":
		case "id":
			q.ID = number(t, val)
		case "key":
			q.Key = []byte(val)
		case "end":
			q.End = []byte(val)
			if val == "*" {
				q.End = []byte{0}
			}
		case "start":
			q.Start = api.Revision(number(t, val))
		case "prev":
			q.PrevKV = true
		case "noput":
			q.NoPut = true
		case "nodelete":
			q.NoDelete = true
		case "progress":
			q.Progress = true
		default:
			t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
		}
	}
	return q
}

func number(t *testing.T, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
