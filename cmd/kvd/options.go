package main

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keelson-io/keelson/server"
)

// effect says what setting an option does.
type effect uint8

const (
	works   effect = iota
	ignored        // accepted and without effect here; the note says why
	notYet         // only values that ask for nothing are accepted
)

// option is one line of the table: everything kvd knows of a flag.
type option struct {
	name   string // of the flag and of the key in a configuration file
	group  string
	def    string // as --help prints it
	help   string
	bool   bool
	effect effect
	note   string
	// set stores a value; nil when the option does not work.
	set func(s *settings, value string) error
	// duration: a bare number in a configuration file counts nanoseconds, as in
	// etcd's.
	duration bool
}

// env is the environment variable of an option.
func (o *option) env() string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// The groups, in the order in which --help prints them.
var groups = []string{"Member", "Clustering", "Security", "Maintenance", "Limits", "Monitoring", "Logging", "Unsafe", "Other"}

// options is the table. Names and meanings are etcd 3.7's.
var options = slices.Concat(workingOptions, clusterOptions, securityOptions, authOptions, observeOptions, maintenanceOptions, ignoredOptions, laterOptions)

var workingOptions = []option{
	text("Member", "name", "default", "Human-readable name for this member.",
		func(s *settings) *string { return &s.server.Name }),
	text("Member", "data-dir", "${name}.kvd", "Path to the data directory.",
		func(s *settings) *string { return &s.server.DataDir }),
	text("Member", "wal-dir", "", "Path to a directory of its own for the log.",
		func(s *settings) *string { return &s.server.WALDir }),
	urls("Member", "listen-peer-urls", server.DefaultListenPeerURL, "List of URLs to listen on for peers: http, https, unix or unixs.",
		func(s *settings) *[]url.URL { return &s.server.ListenPeerURLs }),
	urls("Member", "listen-client-urls", server.DefaultListenClientURL, "List of URLs to listen on for clients, gRPC and HTTP: http, https, unix or unixs.",
		func(s *settings) *[]url.URL { return &s.server.ListenClientURLs }),
	urls("Member", "listen-client-http-urls", "", "List of URLs to listen on for clients' HTTP; takes it away from --listen-client-urls.",
		func(s *settings) *[]url.URL { return &s.server.ListenClientHTTPURLs }),
	urls("Member", "listen-resource-urls", "", "List of URLs to serve the Kubernetes API on, for kubectl, informers and controllers; off if empty. kvd's own.",
		func(s *settings) *[]url.URL { return &s.server.ListenResourceURLs }),
	millis("heartbeat-interval", "100", "Time (in milliseconds) of a heartbeat interval.",
		func(s *settings) *time.Duration { return &s.server.HeartbeatInterval }),
	millis("election-timeout", "1000", "Time (in milliseconds) for an election to timeout.",
		func(s *settings) *time.Duration { return &s.server.ElectionTimeout }),

	urls("Clustering", "initial-advertise-peer-urls", server.DefaultListenPeerURL, "List of this member's peer URLs to advertise to the rest of the cluster.",
		func(s *settings) *[]url.URL { return &s.server.AdvertisePeerURLs }),
	text("Clustering", "initial-cluster", "${name}=http://localhost:2380", "The members of a new cluster: name=url,name=url. Counts only for an empty data directory.",
		func(s *settings) *string { return &s.server.InitialCluster }),
	text("Clustering", "initial-cluster-token", server.DefaultClusterToken, "A word that keeps clusters with equal URLs apart.",
		func(s *settings) *string { return &s.server.ClusterToken }),
	urls("Clustering", "advertise-client-urls", server.DefaultListenClientURL, "List of this member's client URLs to advertise to the public.",
		func(s *settings) *[]url.URL { return &s.server.AdvertiseClientURLs }),

	number("Limits", "max-txn-ops", "128", "Maximum number of operations permitted in a transaction.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.MaxTxnOps = uint(n) }),
	number("Limits", "max-request-bytes", "1572864", "Maximum client request size in bytes the server will accept.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.MaxRequestBytes = uint(n) }),
	number("Limits", "max-concurrent-streams", "4294967295", "Maximum concurrent streams that each client can open at a time.", math.MaxUint32,
		func(s *settings, n uint64) { s.server.MaxConcurrentStreams = uint32(n) }),
	duration("Limits", "grpc-keepalive-min-time", "5s", "Minimum duration interval that a client should wait before pinging server.",
		func(s *settings) *time.Duration { return &s.server.KeepaliveMinTime }),
	duration("Limits", "grpc-keepalive-interval", "2h0m0s", "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable).",
		func(s *settings) *time.Duration { return &s.server.KeepaliveInterval }),
	duration("Limits", "grpc-keepalive-timeout", "20s", "Additional duration of wait before closing a non-responsive connection (0 to disable).",
		func(s *settings) *time.Duration { return &s.server.KeepaliveTimeout }),
	duration("Limits", "watch-progress-notify-interval", "10m0s", "Duration of periodical watch progress notification.",
		func(s *settings) *time.Duration { return &s.server.WatchProgressInterval }),
	number("Limits", "compaction-batch-limit", "2000", "Maximum revisions deleted in each compaction batch.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.CompactionBatch = int(n) }),

	{group: "Limits", name: "pace-heavy-clients", def: "true", bool: true,
		help: "Hold the requests of heavy clients back while they slow quiet clients down. kvd's own.",
		set: func(s *settings, v string) (err error) {
			s.server.PaceHeavyClients, err = parseBool(v)
			return err
		}},
	enabled("Limits", "enable-grpc-gateway", "Serve JSON over HTTP at client URL + \"/v3/\".",
		func(s *settings) *bool { return &s.server.EnableGRPCGateway }),

	text("Logging", "log-level", "info", "debug, info, warn, error, panic or fatal.",
		func(s *settings) *string { return &s.logLevel }),
	text("Logging", "log-format", "json", "json or console.",
		func(s *settings) *string { return &s.logFormat }),
	{group: "Logging", name: "log-outputs", def: "default", set: setLogOutputs,
		help: "Comma-separated: default (standard error), stderr, stdout, or paths of files."},

	toggle("Unsafe", "unsafe-no-fsync", "Do not sync to disk. A machine that loses power loses data.",
		func(s *settings) *bool { return &s.server.UnsafeNoSync }),

	{group: "Other", name: "config-file", set: func(s *settings, v string) error { s.configFile = v; return nil },
		help: "Path to a configuration file (YAML or JSON). Flags and environment are then ignored."},
	toggle("Other", "version", "Print the version and exit.", func(s *settings) *bool { return &s.version }),
	toggle("Other", "help", "Print this help and exit.", func(s *settings) *bool { return &s.help }),
}

// ignoredOptions ask for what kvd does in another way, or always.
var ignoredOptions = []option{
	noEffect("snapshot-count", "10000", "the log is kept by bytes, not by entries"),
	noEffect("snapshot-catchup-entries", "5000", "the log is kept by bytes, not by entries"),
	noEffect("max-snapshots", "5", "a member keeps no snapshot files"),
	noEffect("max-wals", "5", "log files go when the store no longer needs them"),
	noEffect("initial-election-tick-advance", "true", "elections do not wait for it"),
	noEffect("backend-batch-interval", "", "the store flushes by itself"),
	noEffect("backend-batch-limit", "0", "the store flushes by itself"),
	noEffect("backend-bbolt-freelist-type", "map", "the map is always used"),
	noEffect("bootstrap-defrag-threshold-megabytes", "0", "defragmentation does not need a restart"),
	noEffect("compaction-sleep-interval", "10ms", "compaction paces itself"),
	noEffect("raft-read-timeout", "5s", "peers use gRPC's keepalive"),
	noEffect("raft-write-timeout", "5s", "peers use gRPC's keepalive"),
	noEffect("logger", "zap", "the log's format is --log-format"),
	noEffect("log-rotation-config-json", "", "rotation is not served yet"),
	noEffect("downgrade-check-time", "5s", "the leader looks every four seconds"),
	noEffect("v2-deprecation", "write-only", "there is no v2 store"),
	noEffect("pre-vote", "true", "pre-votes are always held"),
	noEffect("discovery-fallback", "exit", "there is no proxy to fall back to"),
}

// laterOptions ask for what kvd cannot do yet. A value that asks for nothing
// (empty, 0, false, *) is accepted; anything else stops the start, because a
// server that silently lacks what it was told to have is worse than none.
var laterOptions = later(
	"discovery", "discovery-proxy",
	"memory-mlock?", "socket-reuse-port?", "socket-reuse-address?",
	"enable-log-rotation?",
)

// lookup finds an option by its name.
func lookup(name string) *option {
	for i := range options {
		if options[i].name == name {
			return &options[i]
		}
	}
	return nil
}

func text(group, name, def, help string, field func(*settings) *string) option {
	return option{group: group, name: name, def: def, help: help, set: func(s *settings, v string) error {
		*field(s) = v
		return nil
	}}
}

func urls(group, name, def, help string, field func(*settings) *[]url.URL) option {
	return option{group: group, name: name, def: def, help: help, set: func(s *settings, v string) error {
		list, err := server.ParseURLs(v)
		*field(s) = list
		return err
	}}
}

func number(group, name, def, help string, most uint64, store func(*settings, uint64)) option {
	return option{group: group, name: name, def: def, help: help, set: func(s *settings, v string) error {
		n, err := strconv.ParseUint(v, 0, 64)
		if err != nil || n > most {
			return fmt.Errorf("%q is not a number from 0 to %d", v, most)
		}
		store(s, n)
		return nil
	}}
}

func millis(name, def, help string, field func(*settings) *time.Duration) option {
	return option{group: "Member", name: name, def: def, help: help, set: func(s *settings, v string) error {
		n, err := strconv.ParseUint(v, 0, 32)
		if err != nil {
			return fmt.Errorf("%q is not a number of milliseconds", v)
		}
		*field(s) = time.Duration(n) * time.Millisecond
		return nil
	}}
}

func duration(group, name, def, help string, field func(*settings) *time.Duration) option {
	return option{group: group, name: name, def: def, help: help, duration: true, set: func(s *settings, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration (such as 300ms, 5s or 2h)", v)
		}
		*field(s) = d
		return nil
	}}
}

func toggle(group, name, help string, field func(*settings) *bool) option {
	return option{group: group, name: name, def: "false", help: help, bool: true, set: func(s *settings, v string) (err error) {
		*field(s), err = parseBool(v)
		return err
	}}
}

// enabled is a toggle that is on unless turned off.
func enabled(group, name, help string, field func(*settings) *bool) option {
	o := toggle(group, name, help, field)
	o.def = "true"
	return o
}

func parseBool(v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", v)
	}
	return b, nil
}

func noEffect(name, def, why string) option {
	return option{name: name, def: def, note: why, effect: ignored, bool: def == "true" || def == "false"}
}

// later makes options that are not served yet; a question mark marks switches.
func later(names ...string) []option {
	out := make([]option, len(names))
	for i, n := range names {
		name, isBool := strings.CutSuffix(n, "?")
		out[i] = option{name: name, effect: notYet, bool: isBool}
	}
	return out
}

// asksForNothing reports whether a value leaves an option as if it was not set.
func asksForNothing(value string) bool {
	return slices.Contains([]string{"", "0", "false", "*", "[]", "{}", "0s"}, value)
}

func setClusterState(s *settings, v string) error {
	switch v {
	case "new", "existing":
		s.server.NewCluster = v == "new"
		return nil
	}
	return fmt.Errorf("invalid value %q, possible values are \"new\", \"existing\"", v)
}

func setLogOutputs(s *settings, v string) error {
	s.logOutputs = nil
	for _, out := range strings.Split(v, ",") {
		if out = strings.TrimSpace(out); out != "" && !slices.Contains(s.logOutputs, out) {
			s.logOutputs = append(s.logOutputs, out)
		}
	}
	if len(s.logOutputs) == 0 {
		return fmt.Errorf("needs at least one output")
	}
	return nil
}
