package cluster

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is USER_HZ, the unit of a process's times in /proc: 100 on every
// Linux port that Go runs on.
const clockTick = 10 * time.Millisecond

// Usage is what a process has used so far.
type Usage struct {
	CPU  time.Duration // user and system
	RSS  int64         // bytes resident now
	Anon int64         // of these, not backed by a file
	Peak int64         // the highest RSS since the start, or since ResetPeak
}

// Usage reads the process's figures from /proc.
func (m *Member) Usage() (Usage, error) { return ProcessUsage(m.PID()) }

// ProcessUsage reads a process's figures from /proc.
func ProcessUsage(pid int) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The command's name may hold anything; the fields start after its ")".
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	u.CPU = time.Duration(user+system) * clockTick

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.RSS = kb << 10
		case "RssAnon":
			u.Anon = kb << 10
		case "VmHWM":
			u.Peak = kb << 10
		}
	}
	return u, nil
}

// ResetPeak makes Peak count from now on.
func (m *Member) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.PID()), []byte("5"), 0)
}

// CPU is the processor time of all members so far.
func (c *Cluster) CPU() time.Duration {
	var total time.Duration
	for _, m := range c.Members {
		if u, err := m.Usage(); err == nil {
			total += u.CPU
		}
	}
	return total
}
