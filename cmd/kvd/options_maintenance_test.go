package main

import (
	"strings"
	"testing"
	"time"
)

func TestMaintenanceOptions(t *testing.T) {
	m := mustLoad(t, nil, nil, "").server.Maintenance
	if m.AutoCompactionMode != "periodic" || m.AutoCompactionRetention != "0" || !m.NoSpaceAutoDisarm || m.AutoDefragPercent != 50 ||
		m.CompactHashCheckTime != time.Minute || m.CorruptCheckTime != 0 || m.InitialCorruptCheck || m.CompactHashCheck {
		t.Errorf("defaults: %+v", m)
	}
	s := mustLoad(t, []string{
		"--quota-backend-bytes=-1", "--auto-compaction-mode=revision", "--auto-compaction-retention=1000", "--corrupt-check-time=4m",
		"--feature-gates=CompactHashCheck=true, InitialCorruptCheck=true,FastLeaseKeepAlive=false", "--quota-auto-disarm=false",
		"--auto-defrag-percent=0", "--rolling-hash-check-time=0s",
	}, nil, "")
	m = s.server.Maintenance
	if s.server.QuotaBytes != -1 || m.AutoCompactionMode != "revision" || m.AutoCompactionRetention != "1000" || m.CorruptCheckTime != 4*time.Minute ||
		!m.CompactHashCheck || !m.InitialCorruptCheck || m.NoSpaceAutoDisarm || m.AutoDefragPercent != 0 || m.RollingHashCheckTime != 0 {
		t.Errorf("not read as given: %+v", m)
	}
	if len(s.notes) != 1 || !strings.Contains(s.notes[0], "FastLeaseKeepAlive") {
		t.Errorf("notes: %q", s.notes)
	}
	for flag, want := range map[string]string{
		"--auto-compaction-mode=often":               `unknown auto-compaction-mode "often"`,
		"--auto-compaction-mode=":                    "undefined auto-compaction-mode",
		"--auto-compaction-retention=x":              "error parsing CompactionRetention",
		"--auto-compaction-retention=-1h":            "negative",
		"--auto-compaction-retention=9999999":        "too many",
		"--compact-hash-check-time=0":                "--compact-hash-check-time must be >0",
		"--feature-gates=Nonsense=true":              "unrecognized feature gate: Nonsense",
		"--feature-gates=CompactHashCheck":           "missing bool value for CompactHashCheck",
		"--feature-gates=CompactHashCheck=oui":       "invalid value of CompactHashCheck=oui",
		"--quota-backend-bytes=2GB":                  "is not a number of bytes",
		"--quota-backend-bytes=99999999999999999999": "is not a number of bytes",
	} {
		if _, err := load([]string{flag}, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", flag, err, want)
		}
	}
}
