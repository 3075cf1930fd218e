package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Errors of a data directory. Each reaches the operator as one line and one
// exit code of kvd.
var (
	// ErrDirInUse: another process holds the directory.
	ErrDirInUse = errors.New("the data directory is in use by another process")
	// ErrWrongCluster: the directory belongs to another cluster.
	ErrWrongCluster = errors.New("the data directory belongs to another cluster")
	// ErrWrongMember: the directory belongs to another member of this cluster.
	ErrWrongMember = errors.New("the data directory belongs to another member")
	// ErrForeignDir: the directory holds data that is not ours.
	ErrForeignDir = errors.New("the data directory is not kvd's")
	// ErrDirDamaged: what says whose directory it is, is damaged or missing.
	ErrDirDamaged = errors.New("the data directory is damaged")
)

// home is a member's data directory, locked, and known to be its own.
//
//	LOCK              held while the member runs
//	member/identity   whose directory this is; written before anything else
//	member/members    the members as this one knows them, for when the store is damaged
//	member/rebuild    the mark of a state that is not to be trusted, see rebuild.go
//	member/wal/       the log (or in the directory of --wal-dir)
//	member/snap/db    the store
//	member/snap/      snapshots on their way in
type home struct {
	cfg      *Config
	identity identity
	// fresh: no log was made yet. The member bootstraps, with initial, unless it
	// joins a cluster that exists.
	fresh   bool
	initial []Member // the members the cluster was made of, or had when this one joined, or the last that this one knew
	noted   string   // what the file of members holds
	rebuilt bool     // the mark says that the state has been rebuilt
	lock    io.Closer
}

// bootstraps reports whether the member begins its log with the initial members,
// unless it holds something: a crash may have left one that is still empty.
func (h *home) bootstraps() bool { return !h.identity.Started && h.identity.Joined == "" }

// openHome locks the data directory and enters it.
func openHome(cfg *Config, ask asker) (*home, error) {
	lock, err := lockHome(cfg)
	if err != nil {
		return nil, err
	}
	return enterHome(cfg, lock, ask)
}

// lockHome locks the data directory, and makes it if it is absent.
func lockHome(cfg *Config) (io.Closer, error) {
	if err := makeDir(cfg.FS, cfg.DataDir); err != nil {
		return nil, err
	}
	lock, err := cfg.FS.Lock(cfg.lockPath())
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return nil, fmt.Errorf("%w: %s", ErrDirInUse, cfg.DataDir)
	case err != nil:
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return lock, nil
}

// enterHome finds out whose the locked directory is. It refuses one that this
// member must not touch; then it has changed nothing in it but the lock file. The
// lock is the home's, or closed after an error.
func enterHome(cfg *Config, lock io.Closer, ask asker) (_ *home, err error) {
	h := &home{cfg: cfg, lock: lock}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	id, err := readIdentity(cfg.FS, cfg.identityPath())
	switch {
	case err == nil:
		err = h.resume(id)
	case errors.Is(err, vfs.ErrNotExist):
		err = h.found(ask)
	}
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.walDir(), cfg.snapDir()} {
		if err = makeDir(cfg.FS, dir); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// dirMode and its files' mode keep other users of the machine out.
const dirMode = 0o700

// makeDir makes dir and what is missing above it, durably: a directory whose
// own entry is lost takes everything that was synced inside with it.
func makeDir(fs vfs.FS, dir string) error {
	var missing []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		_, err := fs.Stat(d)
		if err == nil {
			break
		}
		if !errors.Is(err, vfs.ErrNotExist) {
			return fmt.Errorf("make the data directory: %w", err)
		}
		missing = append(missing, d)
	}
	if err := fs.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	for _, d := range missing {
		if err := fs.SyncDir(filepath.Dir(d)); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
	}
	return nil
}

// found makes an empty directory this member's.
//
// Crash before the identity is durable: the directory is still empty, and the
// next start comes here again. After: the next start resumes with the cluster
// written down here, whatever its flags say by then, and still bootstraps,
// because the identity is not marked started and the log is absent or empty.
func (h *home) found(ask asker) error {
	if err := h.refuseForeign(); err != nil {
		return err
	}
	cfg := h.cfg
	if cfg.ForceNewCluster {
		return fmt.Errorf("%w: --force-new-cluster makes a cluster of the data in %s, but there is none", ErrConfig, cfg.DataDir)
	}
	initial, token, err := cfg.findCluster()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	members, err := parseInitialCluster(initial, token)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var id identity
	if cfg.NewCluster {
		id, err = h.beginCluster(members, token)
	} else {
		id, members, err = h.joinExisting(ask, members)
	}
	if err != nil {
		return err
	}
	id.Incarnation = newIncarnation(cfg.Seed, id.Member)
	h.identity, h.fresh, h.initial = id, true, members
	if err := makeDir(cfg.FS, cfg.memberDir()); err != nil {
		return err
	}
	return writeIdentity(cfg.FS, cfg.identityPath(), h.identity)
}

// beginCluster is the identity of a member of a new cluster.
func (h *home) beginCluster(members []Member, token string) (identity, error) {
	self, err := findSelf(h.cfg, members)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return identity{
		Cluster: clusterID(members), Member: self.ID, Name: h.cfg.Name,
		Token: token, Initial: formatInitialCluster(members),
	}, nil
}

// resume checks that an existing directory is this member's.
func (h *home) resume(id identity) error {
	cfg := h.cfg
	members, err := parseInitialCluster(id.Initial, id.Token)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDirDamaged, cfg.identityPath(), err)
	}
	if err := h.refuseOther(id, members); err != nil {
		return err
	}
	if id.Joined != "" {
		members = nil
		if err := json.Unmarshal([]byte(id.Joined), &members); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDirDamaged, cfg.identityPath(), err)
		}
	}
	h.identity, h.initial = id, members
	logged, err := h.hasLog()
	if err != nil {
		return err
	}
	if id.Started && !logged {
		return fmt.Errorf("%w: %s has run before, but there is no log in %s; "+
			"a member that forgot its votes must not go on (is --wal-dir as it was?)", ErrDirDamaged, cfg.DataDir, cfg.walDir())
	}
	if h.fresh = !logged; logged {
		h.recallMembers()
	}
	return nil
}

// refuseOther compares the directory with what a person said on the command
// line. etcd ignores these flags once a directory exists, and manifests keep
// stale ones, so only a clear contradiction counts.
func (h *home) refuseOther(id identity, members []Member) error {
	cfg := h.cfg
	if cfg.TokenGiven && cfg.ClusterToken != id.Token && !cfg.Discovery.wanted() {
		return fmt.Errorf("%w: %s was made with --initial-cluster-token %q, not %q",
			ErrWrongCluster, cfg.DataDir, id.Token, cfg.ClusterToken)
	}
	if !cfg.InitialClusterGiven {
		return nil
	}
	given, err := parseInitialCluster(cfg.InitialCluster, cfg.ClusterToken)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if cfg.Name != id.Name && named(given, cfg.Name) && named(given, id.Name) {
		return fmt.Errorf("%w: %s is the directory of %q (member %s), not of %q",
			ErrWrongMember, cfg.DataDir, id.Name, id.Member, cfg.Name)
	}
	if strangers(given, members) {
		return fmt.Errorf("%w: %s belongs to cluster %s (%s), which shares no member with --initial-cluster %s",
			ErrWrongCluster, cfg.DataDir, id.Cluster, id.Initial, cfg.InitialCluster)
	}
	return nil
}

func named(list []Member, name string) bool {
	return slices.ContainsFunc(list, func(m Member) bool { return m.Name == name })
}

// strangers reports that two lists share neither a name nor a URL.
func strangers(a, b []Member) bool {
	for _, m := range a {
		for _, o := range b {
			if m.Name == o.Name || slices.ContainsFunc(m.PeerURLs, func(u string) bool { return slices.Contains(o.PeerURLs, u) }) {
				return false
			}
		}
	}
	return true
}

// findSelf finds this member in the initial cluster: by its name, and with the
// peer URLs that it advertises.
func findSelf(cfg *Config, members []Member) (Member, error) {
	advertised := urlStrings(cfg.AdvertisePeerURLs)
	for _, m := range members {
		if m.Name != cfg.Name {
			continue
		}
		if !sameEndpoints(m.PeerURLs, advertised) {
			return Member{}, fmt.Errorf("--initial-cluster has %s=%s but --initial-advertise-peer-urls is %s",
				m.Name, strings.Join(m.PeerURLs, ","), strings.Join(advertised, ","))
		}
		return m, nil
	}
	return Member{}, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", cfg.Name)
}

func formatInitialCluster(members []Member) string {
	var parts []string
	for _, m := range members {
		for _, u := range m.PeerURLs {
			parts = append(parts, m.Name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// How etcd names the files of its log and its snapshots.
var (
	etcdSegment  = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.wal$`)
	etcdSnapshot = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.snap(\.db)?$`)
)

// refuseForeign refuses a directory without an identity that holds data:
// etcd's, or ours after its identity was lost.
func (h *home) refuseForeign() error {
	cfg := h.cfg
	for _, dir := range []string{cfg.walDir(), cfg.snapDir()} {
		entries, err := cfg.FS.List(dir)
		if errors.Is(err, vfs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look into the data directory: %w", err)
		}
		for _, e := range entries {
			file := filepath.Join(dir, e.Name)
			way := fmt.Sprintf("To move a running etcd: kvctl migrate. To begin with the data of a stopped one: "+
				"kvctl snapshot restore %s --skip-hash-check --data-dir NEW", cfg.dbPath())
			if etcdSegment.MatchString(e.Name) || etcdSnapshot.MatchString(e.Name) {
				return fmt.Errorf("%w: %s is etcd's, whose log kvd does not take over; nothing was changed. %s", ErrForeignDir, file, way)
			}
			return fmt.Errorf("%w: %s holds data (%s) but not %s: it is etcd's, or the file was lost. %s",
				ErrForeignDir, cfg.DataDir, file, cfg.identityPath(), way)
		}
	}
	return nil
}

// hasLog reports whether the log's directory holds anything.
func (h *home) hasLog() (bool, error) {
	entries, err := h.cfg.FS.List(h.cfg.walDir())
	if err != nil && !errors.Is(err, vfs.ErrNotExist) {
		return false, fmt.Errorf("look into the data directory: %w", err)
	}
	return len(entries) > 0, nil
}

// started marks that the log exists. From then on a missing log is damage, not
// a new member: one that forgot its vote could elect two leaders in one term.
// The server calls it once raft has opened its log.
func (h *home) started() error {
	if h.identity.Started {
		return nil
	}
	id := h.identity
	id.Started = true
	if err := writeIdentity(h.cfg.FS, h.cfg.identityPath(), id); err != nil {
		return err
	}
	h.identity, h.fresh = id, false
	return nil
}

func (h *home) id() api.MemberID       { return h.identity.Member }
func (h *home) cluster() api.ClusterID { return h.identity.Cluster }

// Close gives the directory back. Call it after all files in it are closed.
func (h *home) Close() error { return h.lock.Close() }
