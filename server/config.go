package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Config is everything a member needs to know. DefaultConfig fills in etcd's
// defaults; cmd/kvd lays flags, environment and file over it; Check refuses
// what cannot work. After New nobody changes it.
type Config struct {
	// Who this member is.
	Name         string
	ClusterToken string // part of member and cluster ids, so that two clusters never mix
	// InitialCluster is "name=url,name=url…": the members of a new cluster. It
	// counts only when the data directory is empty.
	InitialCluster string
	NewCluster     bool // false: join a cluster that exists
	// ForceNewCluster makes this member the only one of its cluster, with the
	// data that it has: the way back when the quorum is lost for good.
	ForceNewCluster bool
	StrictReconfig  bool // refuse membership changes that would cost the quorum
	MaxLearners     int  // how many learners the cluster may have at a time
	AutoPromote     bool // while leading, make voters of learners that have caught up
	Discovery       Discovery
	// Interrupt ends a start that waits for other members; nil: nothing does.
	Interrupt context.Context
	// TokenGiven and InitialClusterGiven say that a person set these, rather than
	// a default: then they must not contradict the data directory.
	TokenGiven          bool
	InitialClusterGiven bool

	// Where it listens and where others find it.
	ListenPeerURLs       []url.URL
	ListenClientURLs     []url.URL
	ListenClientHTTPURLs []url.URL // when set, HTTP leaves the client URLs and lives here
	ListenMetricsURLs    []url.URL
	ListenResourceURLs   []url.URL // where the resource layer is served; none: it is off
	AdvertisePeerURLs    []url.URL
	AdvertiseClientURLs  []url.URL

	// What it keeps.
	DataDir           string
	WALDir            string // empty: inside DataDir
	QuotaBytes        int64  // 0: the default of 2 GiB
	LogRetentionBytes int64  // bytes of log kept behind what the store has on disk
	LogSegmentBytes   int64  // the size of the log's files; 0: its own choice
	UnsafeNoSync      bool   // writes are not synced; a power cut may lose all

	// Raft's times.
	HeartbeatInterval time.Duration
	ElectionTimeout   time.Duration

	// Limits of requests and connections.
	MaxTxnOps             uint
	MaxRequestBytes       uint
	MaxConcurrentStreams  uint32
	KeepaliveMinTime      time.Duration // clients that ping more often are cut off
	KeepaliveInterval     time.Duration // server to client; 0: never
	KeepaliveTimeout      time.Duration // 0: grpc's own
	WatchProgressInterval time.Duration
	WarnUnaryDuration     time.Duration // slower requests are logged
	WarnApplyDuration     time.Duration // commands and ranges that take longer to evaluate are logged
	PaceHeavyClients      bool          // hold heavy requests back while they slow quiet clients down
	CompactionBatch       int           // superseded revisions a batch of physical compaction

	EnablePprof       bool
	ExtensiveMetrics  bool // a histogram of each method's durations, too
	EnableGRPCGateway bool // JSON at the client URLs' /v3/

	Maintenance Maintenance
	Audit       Audit
	Tracer      Tracer // nil: no traces

	// Who may speak with it, and how. tls.go makes every configuration of TLS.
	ClientTLS, PeerTLS     TLS
	CipherSuites           []string // of TLS 1.2; empty: Go's choice
	TLSMinVersion          string   // TLS1.2 or TLS1.3
	TLSMaxVersion          string   // empty: Go's choice
	SelfSignedCertValidity uint     // years that certificates of our own making last
	CORS                   []string // origins whose scripts may call; empty: none, "*": all
	HostWhitelist          []string // names by which plain HTTP may call this member; empty or "*": all

	// How users are known.
	AuthToken         string // etcd's --auth-token: simple, jwt,…, or empty
	AuthTokenTTL      uint   // seconds that a simple token lives unused
	BcryptCost        uint
	MinPasswordLength uint // shorter ones are refused
	AuthFreeFailures  uint // failed logins in a row before the client has to wait; 0: never

	// Who may do what through the resource layer.
	ResourceAuthorization string // AlwaysAllow (or empty) or RBAC
	ResourceTokenFile     string // bearer tokens; empty: there are none
	ResourceServiceIPs    string // the range of the cluster IPs of Services; empty: kubeadm's

	// OnReady is called once the client listeners are served; nil: nobody waits.
	OnReady func()

	// The world, behind interfaces, so that a simulation can replace it.
	Clock clock.Clock
	FS    vfs.FS
	Net   Network // nil: the kernel's
	// Engine opens the database file at path; nil: bbolt does.
	Engine func(path string) (engine.Engine, error)
	Logger *slog.Logger
	// Seed starts every pseudo-random sequence of this process: request ids,
	// lease ids, election delays. It must differ between runs.
	Seed uint64
}

// Defaults that are etcd's, unless said.
const (
	DefaultName             = "default"
	DefaultClusterToken     = "etcd-cluster"
	DefaultListenPeerURL    = "http://localhost:2380"
	DefaultListenClientURL  = "http://localhost:2379"
	DefaultQuotaBytes       = 2 << 30
	DefaultLogRetention     = 64 << 20 // ours: etcd counts entries
	maxElectionTimeout      = 50 * time.Second
	minTicksPerElection     = 5
	dirSuffix               = ".kvd" // the default data directory is name + suffix
	defaultProgressInterval = 10 * time.Minute
)

// DefaultConfig is the single member that `kvd` without flags runs. The world
// (Clock, FS, Logger, Seed) is left to the caller.
func DefaultConfig() Config {
	peer, client := mustURL(DefaultListenPeerURL), mustURL(DefaultListenClientURL)
	return Config{
		Name:           DefaultName,
		ClusterToken:   DefaultClusterToken,
		NewCluster:     true,
		StrictReconfig: true,
		MaxLearners:    DefaultMaxLearners,
		Discovery: Discovery{
			DialTimeout: 2 * time.Second, RequestTimeout: 5 * time.Second,
			KeepaliveTime: 2 * time.Second, KeepaliveTimeout: 6 * time.Second, Insecure: true,
		},
		ListenPeerURLs:        []url.URL{peer},
		ListenClientURLs:      []url.URL{client},
		AdvertisePeerURLs:     []url.URL{peer},
		AdvertiseClientURLs:   []url.URL{client},
		LogRetentionBytes:     DefaultLogRetention,
		HeartbeatInterval:     100 * time.Millisecond,
		ElectionTimeout:       time.Second,
		MaxTxnOps:             api.DefaultMaxTxnOps,
		MaxRequestBytes:       api.DefaultMaxRequestBytes,
		MaxConcurrentStreams:  math.MaxUint32,
		KeepaliveMinTime:      5 * time.Second,
		KeepaliveInterval:     2 * time.Hour,
		KeepaliveTimeout:      20 * time.Second,
		WatchProgressInterval: defaultProgressInterval,
		WarnUnaryDuration:     300 * time.Millisecond,
		WarnApplyDuration:     100 * time.Millisecond,
		PaceHeavyClients:      true,
		CompactionBatch:       mvcc.DefaultCompactionBatch,
		Maintenance:           defaultMaintenance(),
		Audit:                 Audit{Reads: 100},
		EnableGRPCGateway:     true,

		AuthToken:         "simple",
		AuthTokenTTL:      300,
		BcryptCost:        10,
		MinPasswordLength: 1,
		AuthFreeFailures:  10,

		TLSMinVersion:          "TLS1.2",
		SelfSignedCertValidity: 1,
		HostWhitelist:          []string{"*"},
		ResourceAuthorization:  AlwaysAllow,
		ResourceServiceIPs:     defaultServiceIPs,
	}
}

func mustURL(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return *u
}

// Complete fills in what follows from other settings: the data directory and
// the initial cluster of a member that was given none.
func (c *Config) Complete() {
	if c.DataDir == "" {
		c.DataDir = c.Name + dirSuffix
	}
	if c.InitialCluster == "" && !c.Discovery.wanted() {
		parts := make([]string, len(c.AdvertisePeerURLs))
		for i, u := range c.AdvertisePeerURLs {
			parts[i] = c.Name + "=" + u.String()
		}
		c.InitialCluster = strings.Join(parts, ",")
	}
}

// The layout of a data directory. Everything is below member, as in etcd's, and
// readable by its owner only.
func (c *Config) memberDir() string { return filepath.Join(c.DataDir, "member") }
func (c *Config) snapDir() string   { return filepath.Join(c.memberDir(), "snap") }
func (c *Config) dbPath() string    { return filepath.Join(c.snapDir(), "db") }

// membersPath and rebuildPath are told of in rebuild.go.
func (c *Config) membersPath() string { return filepath.Join(c.memberDir(), "members") }
func (c *Config) rebuildPath() string { return filepath.Join(c.memberDir(), "rebuild") }

func (c *Config) walDir() string {
	if c.WALDir != "" {
		return c.WALDir
	}
	return filepath.Join(c.memberDir(), "wal")
}
func (c *Config) identityPath() string { return filepath.Join(c.memberDir(), "identity") }
func (c *Config) lockPath() string     { return filepath.Join(c.DataDir, "LOCK") }

// electionTicks is the election timeout counted in heartbeats.
func (c *Config) electionTicks() int { return int(c.ElectionTimeout / c.HeartbeatInterval) }

// ErrConfig is wrapped by what a person can only mend in the configuration.
var ErrConfig = errors.New("configuration")

// ErrAdvertiseClient is etcd's rule: who says where to listen must say where to
// be found.
var ErrAdvertiseClient = errors.New("--advertise-client-urls is required when --listen-client-urls is set explicitly")

// Check refuses settings that cannot work. The texts are etcd's where etcd has
// the same check.
func (c *Config) Check() error {
	if c.Name == "" {
		return errors.New("--name must not be empty")
	}
	if err := c.checkTimes(); err != nil {
		return err
	}
	if err := c.checkURLs(); err != nil {
		return err
	}
	if err := c.Maintenance.check(); err != nil {
		return err
	}
	if err := c.checkTLS(); err != nil {
		return err
	}
	if err := c.checkResource(); err != nil {
		return err
	}
	if err := checkOrigins(c.CORS); err != nil {
		return err
	}
	if c.MaxTxnOps == 0 || c.MaxRequestBytes == 0 {
		return errors.New("--max-txn-ops and --max-request-bytes must be >0")
	}
	if c.MaxRequestBytes > math.MaxInt32-api.RequestOverheadBytes {
		return fmt.Errorf("--max-request-bytes must be at most %d", math.MaxInt32-api.RequestOverheadBytes)
	}
	if err := c.checkDiscovery(); err != nil {
		return err
	}
	if c.MaxLearners < 0 {
		return fmt.Errorf("--max-learners must not be negative (set to %d)", c.MaxLearners)
	}
	if c.WatchProgressInterval <= 0 {
		return fmt.Errorf("--watch-progress-notify-interval must be >0 (set to %v)", c.WatchProgressInterval)
	}
	return nil
}

func (c *Config) checkTimes() error {
	heartbeat, election := c.HeartbeatInterval.Milliseconds(), c.ElectionTimeout.Milliseconds()
	switch {
	case heartbeat <= 0:
		return fmt.Errorf("--heartbeat-interval must be >0 (set to %dms)", heartbeat)
	case election <= 0:
		return fmt.Errorf("--election-timeout must be >0 (set to %dms)", election)
	case minTicksPerElection*heartbeat > election:
		return fmt.Errorf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", election, heartbeat)
	case c.ElectionTimeout > maxElectionTimeout:
		return fmt.Errorf("--election-timeout[%vms] is too long, and should be set less than %vms", election, maxElectionTimeout.Milliseconds())
	}
	return nil
}

func (c *Config) checkURLs() error {
	for _, list := range [][]url.URL{c.ListenPeerURLs, c.ListenClientURLs, c.ListenClientHTTPURLs, c.ListenMetricsURLs, c.ListenResourceURLs} {
		for _, u := range list {
			if err := checkBind(u); err != nil {
				return err
			}
		}
	}
	switch {
	case len(c.ListenPeerURLs) == 0:
		return errors.New("--listen-peer-urls must not be empty")
	case len(c.ListenClientURLs) == 0:
		return errors.New("--listen-client-urls must not be empty")
	case len(c.AdvertisePeerURLs) == 0:
		return errors.New("--initial-advertise-peer-urls must not be empty")
	case len(c.AdvertiseClientURLs) == 0:
		return ErrAdvertiseClient
	}
	for _, u := range c.AdvertisePeerURLs {
		if err := checkHost(u); err != nil {
			return fmt.Errorf(`--initial-advertise-peer-urls %q must be "host:port" (%w)`, u.String(), err)
		}
	}
	for _, u := range c.AdvertiseClientURLs {
		if err := checkHost(u); err != nil {
			return fmt.Errorf(`--advertise-client-urls %q must be in the format "host:port" or "unix:/path/to/socket" (%w)`, u.String(), err)
		}
	}
	return nil
}
