package server

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Modes of automatic compaction, with etcd's names.
const (
	CompactPeriodic = "periodic"
	CompactRevision = "revision"
)

// Maintenance is what a member does by itself to keep its store small and sound.
type Maintenance struct {
	// AutoCompactionMode says how AutoCompactionRetention is meant: as time or as
	// a number of revisions. "0" compacts nothing.
	AutoCompactionMode      string
	AutoCompactionRetention string

	// NoSpaceAutoDisarm clears an alarm that the quota raised when space has come
	// back; AutoDefragPercent is the free share of the file at which it is
	// rewritten, 0 never.
	NoSpaceAutoDisarm bool
	AutoDefragPercent uint

	// AutoRebuild: a member whose state is damaged, or differs from that of a
	// majority, takes the others' instead.
	AutoRebuild bool

	InitialCorruptCheck  bool          // compare with the others before serving clients
	CorruptCheckTime     time.Duration // between comparisons of the whole history; 0: never
	CompactHashCheck     bool          // hash what compactions cover and compare that
	CompactHashCheckTime time.Duration
	RollingHashCheckTime time.Duration // between comparisons of the rolling hashes; 0: never
}

// defaultMaintenance has etcd's defaults, and ours for what etcd cannot do.
func defaultMaintenance() Maintenance {
	return Maintenance{
		AutoCompactionMode:      CompactPeriodic,
		AutoCompactionRetention: "0",
		NoSpaceAutoDisarm:       true,
		AutoDefragPercent:       50,
		AutoRebuild:             true,
		CompactHashCheckTime:    time.Minute,
		RollingHashCheckTime:    time.Minute,
	}
}

func (m *Maintenance) check() error {
	switch m.AutoCompactionMode {
	case CompactPeriodic, CompactRevision:
	case "":
		return errors.New("undefined auto-compaction-mode")
	default:
		return fmt.Errorf("unknown auto-compaction-mode %q", m.AutoCompactionMode)
	}
	if _, err := m.retention(); err != nil {
		return err
	}
	if m.CompactHashCheckTime <= 0 {
		return fmt.Errorf("--compact-hash-check-time must be >0 (set to %v)", m.CompactHashCheckTime)
	}
	if m.AutoDefragPercent > 99 {
		return fmt.Errorf("--auto-defrag-percent must be at most 99 (set to %d)", m.AutoDefragPercent)
	}
	return nil
}

// retention reads the retention by etcd's rule: a bare number counts hours or
// revisions, by the mode; anything else is a duration, whose nanoseconds count
// revisions in the mode that does.
func (m *Maintenance) retention() (int64, error) {
	text := m.AutoCompactionRetention
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		if m.AutoCompactionMode == CompactPeriodic {
			const most = int(1<<63-1) / int(time.Hour)
			if n > most {
				return 0, fmt.Errorf("error parsing CompactionRetention: %d hours are too many", n)
			}
			return int64(time.Duration(n) * time.Hour), nil
		}
		return int64(n), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("error parsing CompactionRetention: %w", err)
	}
	if d < 0 {
		return 0, fmt.Errorf("error parsing CompactionRetention: %v is negative", d)
	}
	return int64(d), nil
}
