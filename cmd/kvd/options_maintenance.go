package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maintenanceOptions are about what a member does by itself to keep its store
// small and sound. The last ones are kvd's own.
var maintenanceOptions = []option{
	{group: "Maintenance", name: "quota-backend-bytes", def: "0",
		help: "Size of the database at which requests that need space are refused; 0 means 2 GiB, a negative size means no limit.",
		set: func(s *settings, v string) (err error) {
			if s.server.QuotaBytes, err = strconv.ParseInt(v, 0, 64); err != nil {
				return fmt.Errorf("%q is not a number of bytes", v)
			}
			return nil
		}},
	text("Maintenance", "auto-compaction-mode", "periodic",
		"How auto-compaction-retention is meant: periodic (a time) or revision (a number of revisions).",
		func(s *settings) *string { return &s.server.Maintenance.AutoCompactionMode }),
	text("Maintenance", "auto-compaction-retention", "0",
		"History to keep: hours, a duration such as 5m, or revisions, by the mode. 0 means that nothing is compacted.",
		func(s *settings) *string { return &s.server.Maintenance.AutoCompactionRetention }),
	duration("Maintenance", "corrupt-check-time", "0s", "Time between comparisons of all history between members (0 to disable).",
		func(s *settings) *time.Duration { return &s.server.Maintenance.CorruptCheckTime }),
	duration("Maintenance", "compact-hash-check-time", "1m0s", "Time between comparisons of what compactions covered, with the feature gate CompactHashCheck.",
		func(s *settings) *time.Duration { return &s.server.Maintenance.CompactHashCheckTime }),
	{group: "Maintenance", name: "feature-gates", set: setFeatureGates,
		help: "Comma-separated name=true|false. InitialCorruptCheck compares a member with the others before it serves clients; CompactHashCheck compares what compactions covered. etcd's other gates are accepted."},
	duration("Maintenance", "rolling-hash-check-time", "1m0s", "Time between comparisons of the members' rolling hashes (0 to disable). kvd's own.",
		func(s *settings) *time.Duration { return &s.server.Maintenance.RollingHashCheckTime }),
	number("Maintenance", "auto-defrag-percent", "50", "Free share of the database file at which it is rewritten, without a pause (0 to disable). kvd's own.", 99,
		func(s *settings, n uint64) { s.server.Maintenance.AutoDefragPercent = uint(n) }),
	{group: "Maintenance", name: "auto-rebuild", def: "true", bool: true,
		help: "A member whose stored state is damaged, or differs from a majority's, rebuilds it from the others. kvd's own.",
		set: func(s *settings, v string) (err error) {
			s.server.Maintenance.AutoRebuild, err = parseBool(v)
			return err
		}},
	{group: "Maintenance", name: "quota-auto-disarm", def: "true", bool: true,
		help: "Clear an alarm that the quota raised once there is space again. kvd's own.",
		set: func(s *settings, v string) (err error) {
			s.server.Maintenance.NoSpaceAutoDisarm, err = parseBool(v)
			return err
		}},
}

// otherGates are etcd's feature gates that change nothing here, each with what
// is done always.
var otherGates = map[string]string{
	"AllAlpha":                     "name the gates",
	"AllBeta":                      "name the gates",
	"StopGRPCServiceOnDefrag":      "defragmentation stops nobody",
	"TxnModeWriteWithSharedBuffer": "transactions share no buffer",
	"LeaseCheckpoint":              "leases are always checkpointed",
	"LeaseCheckpointPersist":       "leases are always checkpointed",
	"SetMemberLocalAddr":           "the system chooses the local address",
	"FastLeaseKeepAlive":           "keep-alives are always fast",
	"PriorityRequest":              "revocations are never queued behind writes of clients",
}

// setFeatureGates reads etcd's list of gates.
func setFeatureGates(s *settings, v string) error {
	for _, gate := range strings.Split(v, ",") {
		if gate = strings.TrimSpace(gate); gate == "" {
			continue
		}
		name, value, ok := strings.Cut(gate, "=")
		name = strings.TrimSpace(name)
		if !ok {
			return fmt.Errorf("missing bool value for %s", name)
		}
		on, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, err: %w", name, value, err)
		}
		switch why, known := otherGates[name]; {
		case name == "InitialCorruptCheck":
			s.server.Maintenance.InitialCorruptCheck = on
		case name == "CompactHashCheck":
			s.server.Maintenance.CompactHashCheck = on
		case known:
			s.notes = append(s.notes, fmt.Sprintf("the feature gate %s has no effect: %s", name, why))
		default:
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
	}
	return nil
}
