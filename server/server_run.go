package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// Run serves until ctx ends or the member fails, and stops everything. It is
// called once; afterwards the Server is closed.
//
// Order of the stop: leadership is handed over while clients are still served;
// then the clients' port closes, then the log, then the store, which flushes.
func (s *Server) Run(ctx context.Context) error {
	p := &s.parts
	var wait sync.WaitGroup
	background, stop := context.WithCancel(context.Background())
	ready := make(chan struct{})
	served := make(chan struct{})

	p.storage.start(s.Store(), s.fail)
	s.servePeers(&wait)
	wait.Go(func() { p.security.run(background) })
	if p.damage != nil {
		if err := s.repairFirst(ctx); err != nil {
			stop()
			return s.giveUp(ctx, &wait, err)
		}
	}
	serving, stopServing := context.WithCancel(context.Background())
	wait.Go(func() {
		if err := p.node.Run(background); err != nil {
			s.fail(err)
		}
	})
	wait.Go(func() { s.lessor.follow(background) })
	wait.Go(func() { s.lessor.run(background) })
	wait.Go(func() { s.watchLeader(background) })
	wait.Go(func() { s.metrics.followLeader(background, s.node) })
	wait.Go(func() { s.pingPeers(background) })
	if s.audit != nil {
		wait.Go(func() { s.audit.run(background) })
	}
	s.upkeep.start(background, &wait)
	if p.resource != nil {
		wait.Go(func() { p.resource.Run(background) })
	}
	if p.tokens != nil {
		wait.Go(func() { p.tokens.follow(background, s.clock) })
	}
	wait.Go(func() { s.join(background, ready) })
	if s.cfg.AutoPromote {
		wait.Go(func() { p.members.promoteCaughtUp(background) })
	}
	go func() {
		defer close(served)
		if err := s.front().Run(serving, ready); err != nil {
			s.fail(fmt.Errorf("serve clients: %w", err))
		}
	}()

	var err error
	select {
	case <-ctx.Done():
		s.handOver()
	case err = <-p.fatal:
		if err = s.rebuildable(err); errors.Is(err, ErrRebuild) {
			s.handOver()
		}
	}
	s.led.cutAll(false) // idle watches would hold the port's graceful stop up
	stopServing()
	<-served
	close(s.unserved)
	stop() // the node closes its transport, which ends the peers' sockets
	wait.Wait()
	p.sockets.Close()
	return errors.Join(err, p.storage.close(s.Store()), p.home.Close())
}

// giveUp ends a member whose repair has ended with err.
func (s *Server) giveUp(ctx context.Context, wait *sync.WaitGroup, err error) error {
	p := &s.parts
	if ctx.Err() != nil {
		err = nil // it was asked to stop
	}
	end := p.transport.Close
	if p.node != nil {
		end = s.closeNode // which closes the transport, too
	}
	err = errors.Join(err, end())
	wait.Wait()
	p.sockets.Close()
	return errors.Join(err, p.storage.close(s.Store()), p.home.Close())
}

// servePeers accepts the other members on the peer sockets.
func (s *Server) servePeers(wait *sync.WaitGroup) {
	t, ok := s.parts.transport.(peerTransport)
	if !ok {
		return // a network in memory has no sockets
	}
	for _, l := range s.parts.sockets.peer {
		wait.Go(func() {
			if err := t.Serve(l); err != nil {
				s.fail(fmt.Errorf("serve peers on %s: %w", l.Addr(), err))
			}
		})
	}
}

func (s *Server) front() *front {
	v := s.view()
	var json http.Handler
	if s.cfg.EnableGRPCGateway {
		json = s.auth.refuseNames(newGateway(s.parts.grpc, s.clock, s.requestTimeout()))
	}
	return &front{
		cfg: &s.cfg, sockets: s.parts.sockets, grpc: s.parts.grpc, direct: s.parts.direct, metrics: s.metrics, log: s.log,
		http:    &httpEndpoints{view: v, metrics: s.metrics, guard: newHTTPGuard(&s.cfg, s.log), log: s.log, timeout: s.requestTimeout(), gateway: json},
		objects: s.parts.resource,
	}
}

// handOver lets another member lead before this one stops, if there is another.
func (s *Server) handOver() {
	if len(s.members.list()) < 2 {
		return
	}
	ctx, cancel := s.withTimeout(context.Background(), s.cfg.ElectionTimeout)
	defer cancel()
	if err := s.parts.node.TransferLeader(ctx); err != nil {
		s.log.Warn("stopping without handing leadership over", slog.Any("error", err))
	}
}

// joinRetry lies between two attempts to take part in the cluster; each waits
// for as long as a request does.
const joinRetry = 100 * time.Millisecond

// join waits until this member takes part in the cluster: it has published its
// name and client URLs, or the cluster knows them and it has caught up. Then it
// closes ready.
func (s *Server) join(ctx context.Context, ready chan<- struct{}) {
	for ctx.Err() == nil {
		err := s.node.ReadBarrier(ctx)
		if err == nil && s.cfg.Maintenance.InitialCorruptCheck {
			if err := s.upkeep.checkInitially(ctx); err != nil {
				s.fail(err)
				return
			}
		}
		if err == nil {
			err = s.introduce(ctx)
		}
		if err == nil {
			close(ready)
			return
		}
		if ctx.Err() == nil {
			s.log.Info("waiting for the cluster", slog.Any("error", err))
		}
		timer := s.clock.NewTimer(joinRetry)
		select {
		case <-timer.C():
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// introduce tells the cluster what it does not know yet of this member, and ends
// a rebuild. The member has applied what was acknowledged before.
func (s *Server) introduce(ctx context.Context) error {
	self := &publication{
		ID: s.id, Name: s.cfg.Name, ClientURLs: urlStrings(s.cfg.AdvertiseClientURLs),
		Incarnation: s.parts.home.identity.Incarnation,
	}
	if !s.members.published(self) {
		if err := s.publish(ctx, self); err != nil {
			if errors.Is(err, ErrForgotten) { // the log itself says so
				s.fail(err)
			}
			return err
		}
	}
	if s.parts.home.rebuilt {
		return s.absolve(ctx)
	}
	return nil
}

// publish replicates what this member says about itself.
func (s *Server) publish(ctx context.Context, self *publication) error {
	body, err := json.Marshal(self)
	if err != nil {
		return err
	}
	_, err = s.node.Propose(ctx, commandAttributes, "", body)
	return err
}

// every calls fn at each tick of d until ctx ends.
func every(ctx context.Context, c clock.Clock, d time.Duration, fn func(context.Context)) {
	ticker := c.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			fn(ctx)
		}
	}
}
