package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/membershippb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// The cluster version is what all members can do, as replicated state: the
// leader sets it to the lowest of the members' versions. A downgrade that was
// enabled lowers it to the version before, and with it the version of the
// store's schema, so that older members may take over. These are etcd's rules
// and rows; between 3.7 and 3.6 no bucket differs.

const (
	clusterVersionKey = "clusterVersion" // in bucket "cluster": "3.7.0"
	downgradeKey      = "downgrade"      // in bucket "cluster": downgradeRow in JSON
	storageVersionKey = "storageVersion" // in bucket "meta": "3.7.0"

	versionCheck = 4 * time.Second // between looks at the members' versions; etcd's
)

// release is a version without its patch.
type release struct{ major, minor int64 }

func (v release) String() string { return fmt.Sprintf("%d.%d.0", v.major, v.minor) }

// short is how answers print a cluster version.
func (v release) short() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v release) less(o release) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

// before is the one version that a downgrade may lead to.
func (v release) before() release { return release{v.major, v.minor - 1} }

// parseRelease reads "3.7.1" or "3.7", as etcd does. Pre-release and build parts
// are allowed and ignored.
func parseRelease(text string) (release, bool) {
	v, ok := parseSemantic(text)
	if !ok {
		v, ok = parseSemantic(text + ".0")
	}
	return v, ok
}

func parseSemantic(text string) (v release, ok bool) {
	text, build, hasBuild := strings.Cut(text, "+")
	text, pre, hasPre := strings.Cut(text, "-")
	if hasBuild && !identifiers(build) || hasPre && !identifiers(pre) {
		return v, false
	}
	parts := strings.SplitN(text, ".", 3)
	if len(parts) != 3 {
		return v, false
	}
	var numbers [3]int64
	for i, p := range parts {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil {
			return v, false
		}
		numbers[i] = n
	}
	return release{numbers[0], numbers[1]}, true
}

// identifiers are words of letters, digits and dashes between dots.
func identifiers(text string) bool {
	for _, word := range strings.Split(text, ".") {
		if strings.Trim(word, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return false
		}
	}
	return true
}

// downgradeRow is etcd's.
type downgradeRow struct {
	Target  string `json:"target-version"`
	Enabled bool   `json:"enabled"`
}

// versionSet is one state of the versions; it never changes once published.
type versionSet struct {
	known     bool // the cluster has decided
	cluster   release
	storage   string
	downgrade downgradeRow
}

// versionState is the published state. Only the apply goroutine changes it.
type versionState struct{ current atomic.Pointer[versionSet] }

func newVersionState() *versionState {
	v := &versionState{}
	v.current.Store(initialVersions())
	return v
}

// initialVersions holds until the cluster has decided.
func initialVersions() *versionSet {
	v, ok := parseRelease(clusterVersion)
	if !ok {
		panic("version: " + clusterVersion)
	}
	return &versionSet{cluster: v, storage: storageVersion}
}

// load reads the versions at start and after a snapshot was installed.
func (v *versionState) load(store rawReader) error {
	next := initialVersions()
	var bad error
	store.Raw(engine.Cluster, func(key, value []byte) bool {
		switch string(key) {
		case clusterVersionKey:
			if next.cluster, next.known = parseRelease(string(value)); !next.known {
				bad = fmt.Errorf("cluster version %q", value)
			}
		case downgradeKey:
			bad = json.Unmarshal(value, &next.downgrade)
		}
		return bad == nil
	})
	store.Raw(engine.Meta, func(key, value []byte) bool {
		if string(key) == storageVersionKey {
			next.storage = string(value)
		}
		return true
	})
	v.current.Store(next)
	return bad
}

// setCluster applies a new cluster version; the schema's follows it. Apply
// goroutine only.
func (v *versionState) setCluster(tx rawWriter, text string) error {
	to, ok := parseRelease(text)
	if !ok {
		return api.ErrWrongDowngradeVersionFormat
	}
	next := *v.current.Load()
	next.known, next.cluster, next.storage = true, to, to.String()
	tx.SetRaw(engine.Cluster, []byte(clusterVersionKey), []byte(to.String()))
	tx.SetRaw(engine.Meta, []byte(storageVersionKey), []byte(next.storage))
	v.current.Store(&next)
	return nil
}

// setDowngrade enables or ends a downgrade. Apply goroutine only.
func (v *versionState) setDowngrade(tx rawWriter, r *membershippb.DowngradeInfoSetRequest) error {
	next := *v.current.Load()
	next.downgrade = downgradeRow{Enabled: r.Enabled}
	if r.Enabled {
		next.downgrade.Target = r.Ver
	}
	row, err := json.Marshal(next.downgrade)
	if err != nil {
		return err
	}
	tx.SetRaw(engine.Cluster, []byte(downgradeKey), row)
	v.current.Store(&next)
	return nil
}

// keepVersions lets the leader keep the cluster version, until ctx ends.
func (u *upkeep) keepVersions(ctx context.Context) {
	ticker := u.clock.NewTicker(versionCheck)
	defer ticker.Stop()
	for {
		changed := u.s.node.LeaderChanges()
		if u.leads() {
			u.updateVersion(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticker.C():
		}
	}
}

// updateVersion proposes the version that the cluster should have, and ends a
// downgrade that all members have followed.
func (u *upkeep) updateVersion(ctx context.Context) {
	now := u.versions.current.Load()
	versions, all := u.memberVersions(ctx)
	to := decideVersion(now, versions, all)
	if to != nil {
		u.log.Info("setting the cluster version", slog.String("from", now.cluster.String()), slog.String("to", to.String()))
		err := u.ask(ctx, commandClusterVersion, &membershippb.ClusterVersionSetRequest{Ver: to.String()}, nil)
		if err != nil && ctx.Err() == nil {
			u.log.Warn("cannot set the cluster version", slog.Any("error", err))
		}
	}
	if target, ok := parseRelease(now.downgrade.Target); ok && now.downgrade.Enabled && all {
		for _, v := range versions {
			if v != target {
				return
			}
		}
		if err := u.ask(ctx, commandDowngrade, &membershippb.DowngradeInfoSetRequest{}, nil); err != nil {
			u.log.Warn("cannot end the downgrade", slog.Any("error", err))
		}
	}
}

// decideVersion returns the version to set, or nil. all says that every member
// has told its version.
func decideVersion(now *versionSet, versions []release, all bool) *release {
	if !now.known {
		return &now.cluster // a new cluster of equal members
	}
	if !all {
		return nil
	}
	least := versions[0]
	for _, v := range versions {
		if v.less(least) {
			least = v
		}
	}
	if now.downgrade.Enabled {
		target, ok := parseRelease(now.downgrade.Target)
		if !ok || target == now.cluster || target != now.cluster.before() || target != least.before() {
			return nil
		}
		return &target
	}
	if now.cluster.major == least.major && now.cluster.less(least) {
		return &least
	}
	return nil
}

// memberVersions asks every member for its version.
func (u *upkeep) memberVersions(ctx context.Context) (list []release, all bool) {
	own, _ := parseRelease(apiVersion)
	list, all = append(list, own), true
	for _, p := range u.askAll(ctx, callVersion, nil) {
		v, ok := parseRelease(string(p.body))
		if p.err != nil || !ok {
			all = false
			continue
		}
		list = append(list, v)
	}
	return list, all
}

func (u *upkeep) answerVersion(context.Context, api.MemberID, []byte) ([]byte, error) {
	return []byte(apiVersion), nil
}

// Downgrade checks, enables or cancels a downgrade.
func (s *maintenanceService) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := s.serves(); err != nil {
		return nil, err
	}
	u := s.view.upkeep
	var err error
	version := u.versions.current.Load().cluster.short()
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE:
		_, err = u.validateDowngrade(ctx, r.Version)
	case pb.DowngradeRequest_ENABLE:
		var to release
		if to, err = u.validateDowngrade(ctx, r.Version); err == nil {
			err = u.ask(ctx, commandDowngrade, &membershippb.DowngradeInfoSetRequest{Enabled: true, Ver: to.String()}, nil)
		}
		version = u.versions.current.Load().cluster.short()
	case pb.DowngradeRequest_CANCEL:
		// As in etcd, what goes wrong is logged and not told.
		if failed := u.cancelDowngrade(ctx); failed != nil {
			u.log.Warn("cannot cancel the downgrade", slog.Any("error", failed))
		}
		version = u.versions.current.Load().cluster.short()
	default:
		err = api.ErrUnknownMethod
	}
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.DowngradeResponse{Header: s.view.header(s.view.store().Revision()), Version: version}, nil
}

func (u *upkeep) validateDowngrade(ctx context.Context, text string) (release, error) {
	to, ok := parseRelease(text)
	if !ok {
		return to, api.ErrWrongDowngradeVersionFormat
	}
	if err := u.s.node.ReadBarrier(ctx); err != nil {
		return to, err
	}
	now := u.versions.current.Load()
	switch {
	case to != now.cluster.before():
		return to, api.ErrInvalidDowngradeTarget
	case now.downgrade.Enabled:
		return to, api.ErrDowngradeInProcess
	}
	return to, nil
}

func (u *upkeep) cancelDowngrade(ctx context.Context) error {
	if err := u.s.node.ReadBarrier(ctx); err != nil {
		return err
	}
	if !u.versions.current.Load().downgrade.Enabled {
		return api.ErrNoInflightDowngrade
	}
	return u.ask(ctx, commandDowngrade, &membershippb.DowngradeInfoSetRequest{}, nil)
}
