package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
)

// defaultBump is how far a restore raises the revision: more than a cluster can
// have written since the snapshot, so that no client's revision is of the past.
const defaultBump = 1_000_000_000

// newMember are the flags of commands that make a member's data directory.
type newMember struct {
	name, cluster, token, peers, dataDir, walDir string
}

func (m *newMember) define(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&m.name, "name", server.DefaultName, "the member's name")
	f.StringVar(&m.cluster, "initial-cluster", "", "all members of the new cluster: `name=url,…` (default: this one alone)")
	f.StringVar(&m.token, "initial-cluster-token", server.DefaultClusterToken, "tells this cluster from others with the same URLs")
	f.StringVar(&m.peers, "initial-advertise-peer-urls", server.DefaultListenPeerURL, "where the other members find this one")
	f.StringVar(&m.dataDir, "data-dir", "", "the directory to make (default: NAME.kvd)")
	f.StringVar(&m.walDir, "wal-dir", "", "where the log goes, if not into the data directory")
}

// config is what kvd would be started with.
func (m *newMember) config() (server.Config, error) {
	cfg := server.DefaultConfig()
	peers, err := server.ParseURLs(m.peers)
	if err != nil {
		return cfg, usage("--initial-advertise-peer-urls: %v", err)
	}
	cfg.Name, cfg.DataDir, cfg.WALDir = m.name, m.dataDir, m.walDir
	cfg.InitialCluster, cfg.ClusterToken, cfg.AdvertisePeerURLs = m.cluster, m.token, peers
	cfg.Complete()
	return cfg, offline(&cfg)
}

// offline gives a configuration the real world of a program that serves nobody.
func offline(cfg *server.Config) error {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	cfg.Seed = binary.LittleEndian.Uint64(b[:])
	cfg.Clock, cfg.FS, cfg.Logger = clock.System(), vfs.OS(), slog.New(slog.DiscardHandler)
	return nil
}

func (a *app) restoreCommand() *cobra.Command {
	var (
		m          newMember
		skip, mark bool
		bump, mmap uint64
	)
	c := verb("restore FILE --data-dir DIR", "Make a member's data directory from a snapshot of Keelson or etcd",
		"  kvctl snapshot restore backup.db --data-dir /var/lib/kvd\n"+
			"  kvctl snapshot restore backup.db --name m1 --data-dir m1.kvd \\\n"+
			"    --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380 \\\n"+
			"    --initial-advertise-peer-urls http://10.0.0.1:2380 --initial-cluster-token restored", cobra.ExactArgs(1), nil)
	c.Long = c.Short + `.

The members of the new cluster are made of the same file, each with its own --name and --initial-advertise-peer-urls, and
are then started with the same flags. The revision is raised and the history given up, so that no client goes on from a
revision that the new cluster never had; --bump-revision=0 keeps revisions and history as they are in the file.`
	m.define(c)
	f := c.Flags()
	f.BoolVar(&skip, "skip-hash-check", false, "take a file without SHA-256 at its end, such as the database of a stopped member")
	f.Uint64Var(&bump, "bump-revision", defaultBump, "raise the revision by `n`; 0: do not")
	f.BoolVar(&mark, "mark-compacted", true, "give up the history before the raised revision; goes with --bump-revision")
	f.Uint64Var(&mmap, "initial-memory-map-size", 0, "accepted as by etcdutl; not needed")
	f.Lookup("initial-memory-map-size").Hidden = true
	c.RunE = func(c *cobra.Command, args []string) error {
		gave := c.Flags().Changed
		switch {
		case gave("mark-compacted") && !mark && !gave("bump-revision"):
			bump = 0
		case gave("bump-revision") && bump == 0 && !gave("mark-compacted"):
			mark = false
		}
		if mark != (bump > 0) {
			return usage("--bump-revision and --mark-compacted go together: without compaction old revisions would be read as new ones")
		}
		return a.snapshotRestore(c.Context(), args[0], &m, skip, bump)
	}
	return c
}

func (a *app) snapshotRestore(ctx context.Context, file string, m *newMember, skip bool, bump uint64) error {
	cfg, err := m.config()
	if err != nil {
		return err
	}
	did := fmt.Sprintf("restore %s into %s", file, cfg.DataDir)
	f, err := os.Open(file)
	if err != nil {
		return fileFailed(did, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fileFailed(did, err)
	}
	bar := a.progress("restoring")
	r := server.Restore{Config: cfg, Snapshot: f, Size: st.Size(), SkipHashCheck: skip, BumpRevision: int64(bump), Progress: bar.at}
	done, err := r.Run(ctx)
	bar.done()
	if err != nil {
		return restoreFailed(did, err)
	}
	return a.show(result{value: restoreReport(&cfg, &done), simple: func(w io.Writer) { tellRestored(w, &cfg, &done) }})
}

func restoreFailed(did string, err error) error {
	switch {
	case errors.Is(err, server.ErrSnapshotDamaged):
		return checkFailed(did, err, nextSnapshot)
	case errors.Is(err, server.ErrConfig), errors.Is(err, server.ErrDirInUse):
		return &failure{code: exitUsage, did: did, err: err, next: "see `kvctl snapshot restore --help`"}
	}
	return fileFailed(did, err)
}

func restoreReport(cfg *server.Config, r *server.Restored) any {
	return map[string]any{
		"dataDir": cfg.DataDir, "cluster": r.Cluster.String(), "member": r.Member.String(), "revision": r.Revision,
		"keys": r.Keys, "leases": r.Leases, "alarmsLeftOut": r.Alarms,
	}
}

func tellRestored(w io.Writer, cfg *server.Config, r *server.Restored) {
	fmt.Fprintf(w, "Restored %d keys and %d leases at revision %d into %s\n", r.Keys, r.Leases, r.Revision, cfg.DataDir)
	fmt.Fprintf(w, "Member %s (%s) of cluster %s, which has %d member(s)\n", r.Member, cfg.Name, r.Cluster, len(r.Members))
	if r.Alarms > 0 {
		fmt.Fprintf(w, "%d alarm(s) of the old cluster were left out\n", r.Alarms)
	}
	fmt.Fprintf(w, "Start it: kvd --name %s --data-dir %s", cfg.Name, cfg.DataDir)
	if cfg.WALDir != "" {
		fmt.Fprintf(w, " --wal-dir %s", cfg.WALDir)
	}
	fmt.Fprintf(w, " --initial-cluster %s --initial-advertise-peer-urls %s --listen-peer-urls %[2]s --initial-cluster-token %s\n",
		cfg.InitialCluster, joinURLs(cfg.AdvertisePeerURLs), cfg.ClusterToken)
}

func joinURLs(list []url.URL) string {
	s := ""
	for i, u := range list {
		if i > 0 {
			s += ","
		}
		s += u.String()
	}
	return s
}
