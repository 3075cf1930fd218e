package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/server/resource"
)

// parts is what a member is made of beside the Server itself. Owned by New and
// Run, save where it says otherwise.
type parts struct {
	world     world
	home      *home
	sockets   *listeners
	security  *security
	transport transport.Transport
	node      *raft.Node
	rebuild   error              // why nothing that is stored counts; nil: it does
	damage    *raft.DamagedError // what the others must repair before there is a node
	machine   *applier
	members   *reconfiguration
	leaving   leaving
	grpc      *grpc.Server
	direct    *directCalls
	resource  *resource.Layer // nil: it is off
	tokens    *tokenFile      // of the resource layer; nil: it has none
	storage   storage
	fatal     chan error // the failure that ends Run; any goroutine sends, never waiting
}

// world is what a simulation or a test replaces beyond Config's interfaces.
type world struct {
	// transport connects this member with the others.
	transport func(s *Server, h *home) (transport.Transport, error)
	// ask asks other members before this one has its identity.
	ask func(cfg *Config) asker
	// steady is how long a connection must last to count when the membership
	// changes; 0 is etcd's.
	steady time.Duration
}

// real is the world of kvd: gRPC between members.
var real = world{
	transport: func(s *Server, h *home) (transport.Transport, error) {
		t, err := transport.NewGRPC(transport.GRPCConfig{
			ID: s.id, Cluster: s.cluster, Incarnation: h.identity.Incarnation, URLs: urlStrings(s.cfg.AdvertisePeerURLs), Announce: s.announce, Clock: s.clock, Logger: s.log, Dial: s.parts.security.dialPeer,
			FS: s.cfg.FS, SnapDir: s.cfg.snapDir(), Transfer: s.metrics.transfer,
			Writes: func() uint64 { index, _ := s.Store().Applied(); return uint64(index) },
		})
		return peerTransport{t}, err
	},
	ask: askOver,
}

// New opens a member: it locks its directory and opens its sockets, its store and
// its log, in this order. Nothing runs yet. After an error everything is closed again.
func New(cfg Config) (*Server, error) { return open(cfg, real) }

func open(cfg Config, w world) (_ *Server, err error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	lock, err := lockHome(&cfg) // first: a second kvd with these flags hears that, not that its ports are taken
	if err != nil {
		return nil, err
	}
	sockets, err := bind(&cfg)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	undo := closers{func() error { sockets.Close(); return nil }}
	defer func() {
		if err != nil {
			undo.close()
		}
	}()
	ask := w.ask(&cfg)
	h, err := enterHome(&cfg, lock, ask)
	if err != nil {
		return nil, err
	}
	undo = append(undo, h.Close)
	s := newServer(cfg, h.id(), h.cluster(), newMembers(h.initial))
	s.parts = parts{world: w, home: h, sockets: sockets, fatal: make(chan error, 1)}
	if s.auth.invalid != nil {
		return nil, s.auth.invalid
	}
	if err := s.openSecurity(); err != nil {
		return nil, err
	}
	if err := s.openResource(); err != nil {
		return nil, err
	}
	if err := s.openTrusted(); err != nil {
		return nil, err
	}
	undo = append(undo, func() error { return s.parts.storage.close(s.Store()) })
	if cfg.ForceNewCluster {
		if err := h.refuseForce(ask, s.members.list()); err != nil {
			return nil, err
		}
	}
	if s.parts.transport, err = w.transport(s, h); err != nil {
		return nil, fmt.Errorf("open the transport: %w", err)
	}
	closeTransport := len(undo)
	undo = append(undo, s.parts.transport.Close)
	s.refuseRemoved()
	if err := s.openNode(s.parts.transport); err != nil {
		if err := s.repairable(err); err != nil {
			return nil, err
		}
		return s, nil // Run begins with the repair
	}
	undo[closeTransport] = s.closeNode // which closes the transport, too
	if err := h.started(); err != nil {
		return nil, fmt.Errorf("mark the data directory as started: %w", err)
	}
	s.parts.grpc = s.services()
	return s, nil
}

// openStore opens the database and learns the membership from it.
func (s *Server) openStore() error {
	store, db, err := s.loadStore(s.cfg.dbPath())
	if err != nil {
		return err
	}
	s.store.Store(store)
	s.parts.storage.engine = db
	s.parts.machine = &applier{s: s, store: store}
	if err := s.learn(store); err != nil {
		return errors.Join(err, s.parts.storage.close(store))
	}
	s.noteMembers()
	return nil
}

// learn takes over what the rows of a store say.
func (s *Server) learn(store *mvcc.Store) (err error) {
	if err := errors.Join(s.members.load(store), s.upkeep.load(store)); err != nil {
		return fmt.Errorf("%w: %w", ErrDirDamaged, err)
	}
	if err := s.auth.load(store); err != nil {
		return err
	}
	s.parts.machine.followed = s.members.current.Load()
	if s.judge, err = newJudge(store); err != nil {
		return err
	}
	s.startConf, err = readConfState(store)
	if index, _ := store.Applied(); err == nil && index > 0 && s.startConf == nil {
		err = fmt.Errorf("%w: the store stands at entry %d but names no membership", ErrDirDamaged, index)
	}
	return err
}

func (c *Config) openEngine(path string) (engine.Engine, error) {
	if c.Engine != nil {
		return c.Engine(path)
	}
	return engine.OpenBolt(path, engine.BoltOptions{NoSync: c.UnsafeNoSync, Logger: c.Logger})
}

// loadStore opens the database file at path.
func (s *Server) loadStore(path string) (*mvcc.Store, engine.Engine, error) {
	db, err := s.cfg.openEngine(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the database %s: %w", path, err)
	}
	store, err := mvcc.Open(mvcc.Config{
		Clock: s.clock, Engine: s.metrics.timedEngine(db), Logger: s.log,
		CompactionBatch: s.cfg.CompactionBatch,
		HashCompactions: s.cfg.Maintenance.CompactHashCheck,
		OnFatal:         s.fail,
		OnCorrupt:       s.distrust,
		OnLease: func(c mvcc.LeaseChange) {
			s.metrics.store.lease(c)
			s.lessor.changed(c)
		},
		OnCompaction: s.metrics.store.compaction,
	})
	if err != nil {
		db.Close()
		return nil, nil, fmt.Errorf("open the store: %w", err)
	}
	return store, db, nil
}

// openNode opens the log.
func (s *Server) openNode(t transport.Transport) error {
	cfg, err := s.nodeConfig(t)
	if err != nil {
		return err
	}
	node, err := raft.Open(cfg)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	node.Handle(callLease, s.answerLease)
	node.Handle(callPing, answerPing)
	s.upkeep.handle(node)
	s.parts.node = node
	s.lead(node)
	s.parts.members = s.reconfiguration()
	node.Handle(callMember, s.parts.members.answer)
	return nil
}

// nodeConfig is for openNode and repair. A fresh member begins its log with the
// members that the cluster is made of; all of them write the same entries.
func (s *Server) nodeConfig(t transport.Transport) (raft.Config, error) {
	h := s.parts.home
	var peers []raft.Peer
	for _, m := range s.reachable() {
		row, err := json.Marshal(m)
		if err != nil {
			return raft.Config{}, err
		}
		peers = append(peers, raft.Peer{ID: m.ID, URLs: m.PeerURLs, Incarnation: m.Incarnation, Learner: m.Learner, Context: row})
	}
	alone, err := json.Marshal(&memberChange{Member: Member{ID: s.id}, Promote: true})
	if err != nil {
		return raft.Config{}, err
	}
	return raft.Config{
		ID: s.id, Cluster: s.cluster, Peers: peers, Bootstrap: h.bootstraps(),
		FS: s.metrics.timedFS(s.cfg.FS), Dir: s.cfg.walDir(), SnapDir: s.cfg.snapDir(),
		Clock: s.clock, Rand: rand.NewPCG(s.cfg.Seed, uint64(s.id)),
		Transport: t, StateMachine: s.parts.machine,
		TickInterval: s.cfg.HeartbeatInterval, HeartbeatTicks: 1, ElectionTicks: s.cfg.electionTicks(),
		RequestTimeout: s.requestTimeout(), LogRetention: s.cfg.LogRetentionBytes, SegmentSize: s.cfg.LogSegmentBytes,
		Rebuild: s.parts.rebuild, Judge: s.judge.allow, OnRefused: s.refusedBy, Alone: s.cfg.ForceNewCluster, AloneContext: alone,
		Logger: s.log, OnFatal: s.fail,
	}, nil
}

// reachable are the members to speak with. One that is to be repaired may have noted
// members that its store does not know any more, the leader among them.
func (s *Server) reachable() []Member {
	set := s.members.current.Load()
	if s.parts.damage == nil {
		return set.list
	}
	list := slices.Clone(set.list)
	for _, m := range s.parts.home.initial {
		if _, known := set.find(m.ID); !known && !set.removed[m.ID] {
			list = append(list, m)
		}
	}
	return list
}

// closeNode closes a node that never ran.
func (s *Server) closeNode() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.parts.node.Run(ctx)
}

// fail ends Run. The first failure counts; the others follow from it.
func (s *Server) fail(err error) {
	select {
	case s.parts.fatal <- err:
	default:
	}
}

// closers are undone in reverse order.
type closers []func() error

func (c closers) close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		errs = append(errs, c[i]())
	}
	return errors.Join(errs...)
}

// storage runs the store of the moment. Owned by Run before the node runs and
// after it has stopped, by the apply goroutine in between.
type storage struct {
	engine engine.Engine
	old    []closers          // of stores that were replaced; closed at the end, when no reader is left
	stop   context.CancelFunc // ends the store's Run
	done   chan struct{}      // closed when it ended
}

// start runs the store until the storage is stopped or the store replaced.
func (t *storage) start(store *mvcc.Store, fail func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.stop, t.done = cancel, done
	go func() {
		defer close(done)
		if err := store.Run(ctx); err != nil && ctx.Err() == nil {
			fail(fmt.Errorf("the store stopped: %w", err))
		}
	}()
}

// halt stops the running store and waits for it; false: none runs. The store
// flushes what it has.
func (t *storage) halt() bool {
	if t.stop == nil {
		return false
	}
	t.stop()
	<-t.done
	return true
}

// close closes all databases. Nothing may read any more.
func (t *storage) close(store *mvcc.Store) error {
	t.halt()
	errs := []error{store.Close(), t.engine.Close()}
	for _, old := range t.old {
		errs = append(errs, old.close())
	}
	return errors.Join(errs...)
}

// replaceStore makes the verified snapshot at path this member's state. It is
// called by the apply goroutine, which is the store's only writer.
//
// Crash before the rename is durable: the old database stands, the log still
// lacks what the snapshot brings, and the leader sends it again. After: the
// database is ahead of the log, which raft.Open sees by its applied index.
func (s *Server) replaceStore(path string) (*mvcc.Store, error) {
	t := &s.parts.storage
	s.metrics.store.installs.Inc()
	defer s.metrics.store.installs.Dec()
	running := t.halt()
	if err := s.adoptFile(path); err != nil {
		return nil, err
	}
	store, db, err := s.loadStore(s.cfg.dbPath())
	if err != nil {
		return nil, err
	}
	old := s.Store()
	store.AdoptWatchers(old, func() { s.store.Store(store) })
	t.old = append(t.old, closers{t.engine.Close, old.Close}) // readers may still be in it
	t.engine = db
	if running {
		t.start(store, s.fail)
	}
	return store, nil
}

// adoptFile puts the snapshot in the database's place.
func (s *Server) adoptFile(path string) error {
	db := s.cfg.dbPath()
	if err := s.cfg.FS.Rename(path, db); err != nil {
		return fmt.Errorf("put the snapshot in place: %w", err)
	}
	return s.cfg.FS.SyncDir(filepath.Dir(db))
}
