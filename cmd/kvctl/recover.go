package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
	"github.com/keelson-io/keelson/server"
)

// recovery is what `cluster recover` was told.
type recovery struct {
	dataDir, walDir, backup string
	yes, dryRun             bool
}

func (a *app) clusterCommand() *cobra.Command {
	var r recovery
	c := verb("recover --data-dir DIR", "Make a new cluster of one from a survivor, when the quorum is lost for ever",
		"  kvctl cluster recover --data-dir /var/lib/kvd --dry-run\n  kvctl cluster recover --data-dir /var/lib/kvd", cobra.NoArgs,
		func(ctx context.Context, _ []string) error { return a.recover(ctx, &r) })
	f := c.Flags()
	f.StringVar(&r.dataDir, "data-dir", "", "the data directory of the survivor, which must be stopped")
	f.StringVar(&r.walDir, "wal-dir", "", "where its log is, if not in the data directory")
	f.StringVar(&r.backup, "backup-dir", "", "where a copy of the directory is kept (default: DIR.before-recover-TIME)")
	f.BoolVar(&r.yes, "yes", false, "do not ask")
	f.BoolVar(&r.dryRun, "dry-run", false, "say what would be done, and what the directory holds")
	return family("cluster", "The cluster as a whole", c)
}

// recover guides through what kvd does with --force-new-cluster.
func (a *app) recover(ctx context.Context, r *recovery) error {
	if r.dataDir == "" {
		return usage("cluster recover: --data-dir is missing")
	}
	r.dataDir = filepath.Clean(r.dataDir)
	did := "recover a cluster from " + r.dataDir
	cfg := server.DefaultConfig()
	cfg.DataDir, cfg.WALDir = r.dataDir, r.walDir
	if err := offline(&cfg); err != nil {
		return err
	}
	if r.backup == "" {
		r.backup = r.dataDir + ".before-recover-" + time.Now().UTC().Format("20060102T150405Z")
	}
	survey, err := cfg.Survey()
	if err != nil {
		return recoverFailed(did, err)
	}
	log, err := wal.Inspect(vfs.OS(), survey.WALDir, func(wal.Record) {})
	if err != nil {
		return recoverFailed(did, err)
	}
	tellSurvivor(a.out, r, &survey, &log.Recovered)
	if r.dryRun {
		return nil
	}
	if err := a.confirm(r, survey.Name); err != nil {
		return err
	}
	if err := copyDirs(ctx, r, survey.WALDir); err != nil {
		return fileFailed("copy "+r.dataDir, err)
	}
	fmt.Fprintf(a.out, "Copied to %s\n", r.backup)
	if err := cfg.StandAlone(); err != nil {
		return recoverFailed(did, err)
	}
	tellRecovered(a.out, r, &survey)
	return nil
}

func recoverFailed(did string, err error) error {
	f := &failure{code: exitCheck, did: did, err: err, next: "another member's directory may be better; a snapshot can be restored: `kvctl snapshot restore --help`"}
	switch {
	case errors.Is(err, server.ErrDirInUse):
		f.code, f.next = exitUsage, "stop kvd first"
	case errors.Is(err, fs.ErrNotExist):
		f.code, f.next = exitFile, "give the --data-dir (and --wal-dir) that kvd was started with"
	case errors.Is(err, server.ErrConfig):
		f.code, f.next = exitRefused, "stop all other members first; if they live, the quorum may not be lost: `kvctl endpoint status --cluster`"
	}
	return f
}

// tellSurvivor says what the directory holds and what is going to happen to it.
func tellSurvivor(w io.Writer, r *recovery, s *server.Survey, log *wal.Recovered) {
	fmt.Fprintf(w, "%s is the directory of member %s (%q) of cluster %s.\n", r.dataDir, s.Member, s.Name, s.Cluster)
	fmt.Fprintf(w, "It holds %d keys at revision %d, and a log that ends with entry %d of term %d;\n", s.Keys, s.Revision, log.Last, log.HardState.Term)
	fmt.Fprintf(w, "%d entries of it are not applied to that revision yet.\n\nMembers it knows:\n", int64(log.Last)-int64(s.Index))
	for _, m := range s.Members {
		note := "will be removed for ever"
		if m.ID == s.Member {
			note = "this one, stays"
		}
		fmt.Fprintf(w, "  %s  %-12s %s  (%s)\n", m.ID, m.Name, strings.Join(m.PeerURLs, ","), note)
	}
	fmt.Fprintf(w, `
What will be done:
  1. The directory is copied to %s.
  2. Its whole log counts as agreed on. What the lost members had and this one had not is lost.
  3. The other members are removed. None of them may ever be started again with its old data.

If several members' directories survived, take the one whose log ends with the highest term, then the highest entry:
run this with --dry-run on each. A quorum that can be started again needs no recovery.

`, r.backup)
}

func (a *app) confirm(r *recovery, name string) error {
	if r.yes {
		return nil
	}
	answer, err := a.ask(fmt.Sprintf("Type the member's name (%s) to go on: ", name))
	if err != nil || strings.TrimSpace(answer) != name {
		return &failure{code: exitRefused, err: errors.New("not confirmed; nothing was changed"), next: "type the name, or give --yes"}
	}
	return nil
}

func tellRecovered(w io.Writer, r *recovery, s *server.Survey) {
	self := ""
	for _, m := range s.Members {
		if m.ID == s.Member {
			self = strings.Join(m.PeerURLs, ",")
		}
	}
	fmt.Fprintf(w, `Done. Next:
  1. Start kvd as before, with this --data-dir; it is a cluster of one. (Its peer URL is %s.)
  2. kvctl endpoint health
  3. Wipe the other machines' data directories, and for each: kvctl member add NAME --peer-urls URL, then start its kvd
     with what that prints. One at a time, each healthy before the next.
The copy in %s can go when all is well.
`, self, r.backup)
}

// copyDirs keeps a copy of the data directory, and of the log if it is elsewhere.
func copyDirs(ctx context.Context, r *recovery, walDir string) error {
	if err := copyDir(ctx, r.dataDir, r.backup); err != nil {
		return err
	}
	if r.walDir == "" {
		return nil
	}
	return copyDir(ctx, walDir, filepath.Join(r.backup, "wal-dir"))
}

// copyDir copies a directory into one that must not exist, durably.
func copyDir(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	var dirs []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			dirs = append(dirs, target)
			return os.MkdirAll(target, 0o700)
		}
		return copyFile(path, target)
	})
	for _, d := range dirs {
		err = errors.Join(err, syncDir(d))
	}
	return errors.Join(err, syncDir(filepath.Dir(to)))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
