package raft

import (
	"errors"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/raft/wal"
)

// BeginLog makes the log of a member whose state machine already stands at an
// entry, which all members of the new cluster must agree on: their logs begin
// behind it. A crash on the way leaves something that must not be used; the
// caller marks the member's directory as complete only afterwards.
func BeginLog(fs vfs.FS, dir string, cluster api.ClusterID, id api.MemberID, index api.Index, term api.Term) error {
	w, err := wal.Create(fs, dir, wal.Identity{Cluster: cluster, Member: id}, wal.Options{})
	if err != nil {
		return err
	}
	if err = w.Reset(wal.Position{Index: index, Term: term}); err == nil {
		err = w.Append(&wal.HardState{Term: term, Commit: index}, nil)
	}
	if err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// StandAlone does to the log of a stopped member what Open does with
// Config.Alone, and nothing else: at its next start the member is the only one.
func StandAlone(cfg Config) error {
	cfg.Alone = true
	r, err := recoverLog(&cfg)
	if err != nil {
		return err
	}
	return r.wal.Close()
}
