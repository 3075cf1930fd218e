package server

import (
	"errors"
	"fmt"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
)

// Survey says what the data directory of a stopped member holds.
type Survey struct {
	Cluster  api.ClusterID
	Member   api.MemberID
	Name     string
	Members  []Member // as far as this member had applied its log
	Index    api.Index
	Revision api.Revision
	Keys     int
	WALDir   string
}

// Survey reads the directory of a stopped member. It changes nothing.
func (c *Config) Survey() (s Survey, err error) {
	id, err := readIdentity(c.FS, c.identityPath())
	if err != nil {
		return s, err
	}
	lock, err := c.FS.Lock(c.lockPath())
	if err != nil {
		return s, fmt.Errorf("%w: %s", ErrDirInUse, c.DataDir)
	}
	defer lock.Close()
	s = Survey{Cluster: id.Cluster, Member: id.Member, Name: id.Name, WALDir: c.walDir()}
	if _, err := c.FS.Stat(c.dbPath()); err != nil {
		return s, err
	}
	db, err := engine.OpenBolt(c.dbPath(), engine.BoltOptions{ReadOnly: true})
	if err != nil {
		return s, err
	}
	defer db.Close()
	store, err := mvcc.Open(mvcc.Config{Clock: c.Clock, Engine: db, Logger: c.Logger})
	if err != nil {
		return s, err
	}
	defer store.Close()
	known := newMembers(nil)
	if err := known.load(store); err != nil {
		return s, err
	}
	s.Members, s.Revision, s.Keys = known.list(), store.Revision(), store.Stats().Keys
	if s.Index, _ = store.Applied(); s.Index == 0 {
		s.Members, err = parseInitialCluster(id.Initial, id.Token)
	}
	return s, err
}

// StandAlone makes a stopped member the only one of its cluster, as kvd does
// with --force-new-cluster. It refuses while another member answers at a peer
// URL. A crash before the log is synced leaves the member as it was; after it,
// its next start is alone.
func (c *Config) StandAlone() (err error) {
	cfg := *c
	cfg.ForceNewCluster = true
	ask := real.ask(&cfg)
	h, err := openHome(&cfg, ask)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	s := newServer(cfg, h.id(), h.cluster(), newMembers(h.initial))
	s.parts = parts{world: real, home: h}
	if err := s.openTrusted(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.parts.storage.close(s.Store())) }()
	if err := h.refuseForce(ask, s.members.list()); err != nil {
		return err
	}
	node, err := s.nodeConfig(nil)
	if err != nil {
		return err
	}
	return raft.StandAlone(node)
}
