package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/keelson-io/keelson/raft"
)

// repairable takes damage that the other members can mend, and returns all else.
func (s *Server) repairable(err error) error {
	var damage *raft.DamagedError
	switch {
	case !errors.As(err, &damage):
		return err
	case s.cfg.ForceNewCluster || len(s.members.list()) < 2:
		return fmt.Errorf("%w; no other member can repair it", err)
	}
	s.parts.damage = damage
	return nil
}

// repair gives this member the state and the log that it has lost, and then its
// node. Peers are served, clients are not. See raft.Repair for what a crash
// leaves. The store runs, and is replaced as by any snapshot.
func (s *Server) repair(ctx context.Context) error {
	cfg, err := s.nodeConfig(s.parts.transport)
	if err != nil {
		return err
	}
	relayed, err := raft.Repair(ctx, cfg, s.parts.damage)
	if err != nil {
		return err
	}
	s.metrics.repairs.Inc()
	if err := s.noteRebuilt(); err != nil {
		return err
	}
	if s.startConf, err = readConfState(s.Store()); err != nil {
		return err
	}
	if err := s.openNode(relayed); err != nil {
		return err
	}
	s.parts.grpc = s.services()
	return nil
}

// noteRebuilt says in the mark that the state has been rebuilt.
func (s *Server) noteRebuilt() error {
	reason := s.parts.rebuild
	if reason == nil {
		return nil
	}
	s.parts.rebuild = nil
	return s.parts.home.mark(markRebuilt, reason.Error())
}

// repairFirst waits for the repair. After an error, or when ctx ends, there may
// be a node that never ran.
func (s *Server) repairFirst(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.repair(ctx) }()
	select {
	case err := <-done:
		return err
	case err := <-s.parts.fatal:
		cancel()
		<-done
		return err
	}
}
