package campaign

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
)

// kill kills the leader with SIGKILL, starts it again once somebody else leads,
// and waits until it serves.
func (r *run) kill(ctx context.Context) error {
	leader, err := r.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	f := r.rec.Begin("kill-leader", r.ids[leader], "kill "+leader.Name+", which leads")
	leader.Kill()
	r.rec.Exit(history.Exit{At: r.rec.Now(), Member: r.ids[leader], Code: -1, Signal: "killed", Wanted: true})
	if _, err := r.cluster.Leader(ctx); err != nil {
		return err
	}
	time.Sleep(r.Settle)
	if err := leader.Start(); err != nil {
		return err
	}
	if err := r.cluster.Ready(ctx); err != nil {
		return err
	}
	r.rec.End(f)
	return nil
}

// sampleEvery is how often members' processes are looked at.
const sampleEvery = time.Second

// sample writes down what members use, and who has ended by itself.
func (r *run) sample(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(sampleEvery):
		}
		for _, m := range r.cluster.Members {
			pid := m.PID()
			if pid == 0 {
				continue // killed
			}
			if u, err := m.Usage(); err == nil {
				r.rec.Sample(history.Sample{At: r.rec.Now(), Member: r.ids[m], RSS: u.RSS, Disk: bytesBelow(m.DataDir())})
			}
		}
	}
}

// bytesBelow is the size of the files in a directory that changes meanwhile.
func bytesBelow(dir string) (n int64) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if f.IsDir() {
			n += bytesBelow(dir + "/" + f.Name())
		} else if info, err := f.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// logs takes what members printed above info into the history.
func (r *run) logs() error {
	for _, m := range r.cluster.Members {
		f, err := os.Open(m.LogPath())
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if l, ok := parseLine(lines.Text(), r.began); ok {
				l.Member = r.ids[m]
				r.rec.LogLine(l)
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// parseLine reads a line of kvd's or etcd's log. What is no JSON was printed by
// the runtime, and is severe.
func parseLine(text string, began time.Time) (l history.LogLine, ok bool) {
	var x struct {
		TS         time.Time `json:"ts"`
		Level, Msg string
	}
	if json.Unmarshal([]byte(text), &x) != nil {
		return history.LogLine{Level: "panic", Text: text}, strings.TrimSpace(text) != ""
	}
	return history.LogLine{At: x.TS.Sub(began), Level: x.Level, Text: text}, x.Level != "info" && x.Level != "debug"
}
