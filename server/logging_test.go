package server

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/api"
)

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, slog.LevelInfo, "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not this one")
	log.Warn("ready", "member", api.MemberID(0x8e9e05c52164694d), slog.Group("g", "cluster", api.ClusterID(0xff)))
	var line struct {
		TS, Level, Msg, Member string
		G                      struct{ Cluster string }
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line.TS == "" || line.Level != "warn" || line.Msg != "ready" || line.Member != "8e9e05c52164694d" || line.G.Cluster != "ff" {
		t.Errorf("got %s", out.String())
	}
	out.Reset()
	if log, err = NewLogger(&out, levelFatal, "console"); err != nil {
		t.Fatal(err)
	}
	if log.Error("silent"); out.Len() > 0 {
		t.Errorf("at level fatal: %q", out.String())
	}
	if _, err := NewLogger(&out, slog.LevelInfo, "xml"); err == nil {
		t.Error("format xml was accepted")
	}
}

func TestLevels(t *testing.T) {
	last := slog.LevelDebug - 1
	for _, name := range strings.Fields("debug info warn error panic fatal") {
		level, err := ParseLevel(name)
		if err != nil || level <= last {
			t.Errorf("%s: %v, %v", name, level, err)
		}
		last = level
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error(`level "loud" was accepted`)
	}
}
