package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/transport"
)

// Stepped is a member without goroutines and sockets, for a simulation that runs
// a whole cluster in one goroutine. Its home, log, store, apply step, lease
// clocks and handlers are those of Server; only what waits and what wakes is the
// simulation's. Nothing of it may be called by two at once.
type Stepped struct {
	*Server
	// Node is to be driven by the caller, who calls Follow after each Turn.
	Node *raft.Stepper

	world    SteppedWorld
	services []service
	ctx      context.Context
	end      context.CancelFunc
}

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// SteppedWorld is what the simulation gives a member beyond Config's interfaces.
type SteppedWorld struct {
	// Engine opens the database file at path.
	Engine    func(path string) (engine.Engine, error)
	Transport func(api.MemberID) transport.Transport
	// Ask is what the member at a peer URL announces: see Announcement. Needed by a
	// member that joins a cluster.
	Ask func(url string) ([]byte, error)
	// Park suspends the calling task until ready says true; false: the member is
	// gone and the task must end.
	Park func(ready func() bool) bool
	// Observe sees the entries that the state machine is given, before it is.
	Observe func([]raft.Entry)
	// SegmentBytes is the size of the log's files.
	SegmentBytes int64
}

// OpenStepped opens a member as New does, without its sockets. Close ends it; a
// crash is to forget it.
func OpenStepped(cfg Config, w SteppedWorld) (_ *Stepped, err error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	h, err := openHome(&cfg, func(_ context.Context, url string) (*announcement, error) {
		b, err := w.Ask(url)
		if err != nil {
			return nil, err
		}
		a := &announcement{}
		return a, json.Unmarshal(b, a)
	})
	if err != nil {
		return nil, err
	}
	cfg.Engine, cfg.LogSegmentBytes = w.Engine, w.SegmentBytes
	s := newServer(cfg, h.id(), h.cluster(), newMembers(h.initial))
	close(s.unserved) // the caller looks at Failure before it answers anybody
	s.parts = parts{home: h, fatal: make(chan error, 1)}
	m := &Stepped{Server: s, world: w}
	m.ctx, m.end = context.WithCancel(context.Background())
	if err := s.openTrusted(); err != nil {
		return nil, err
	}
	s.parts.transport = w.Transport(s.id)
	s.refuseRemoved()
	if err := m.open(s.parts.transport); err != nil {
		return m, s.repairable(err)
	}
	return m, h.started()
}

// Damaged reports that the member's log is damaged: it has no Node until a task
// has done Repair.
func (m *Stepped) Damaged() bool { return m.parts.damage != nil }

// Repair gets what the member has lost from the others. It parks, and ends with
// an error if the member is gone.
func (m *Stepped) Repair() error {
	cfg, err := m.nodeConfig(m.parts.transport)
	if err != nil {
		return err
	}
	cfg.Park = m.world.Park
	relayed, err := raft.Repair(m.ctx, cfg, m.parts.damage)
	if err != nil {
		return err
	}
	if err := m.noteRebuilt(); err != nil {
		return err
	}
	if m.startConf, err = readConfState(m.Store()); err != nil {
		return err
	}
	if err := m.open(relayed); err != nil {
		return err
	}
	m.parts.damage = nil
	return nil
}

// Rebuilds reports whether what made the member stop is a reason to rebuild its
// state, and writes the mark by which its next start does.
func (m *Stepped) Rebuilds(reason error) bool { return errors.Is(m.rebuildable(reason), ErrRebuild) }

// Join takes part in the cluster: the others learn what they do not know of this
// member yet, and a rebuild of its state ends. It parks.
func (m *Stepped) Join() error {
	if err := m.Node.ReadBarrier(m.ctx); err != nil {
		return err
	}
	return m.introduce(m.ctx)
}

// Announcement is what the member tells one that joins, without making sure that
// it is the newest: a member without a leader announces so, too.
func (m *Stepped) Announcement() ([]byte, error) { return m.announcement() }

// Members are those that the member knows of, by id. They must not be changed.
func (m *Stepped) Members() []Member { return m.members.list() }

// Incarnation is the mark of the member's data directory.
func (m *Stepped) Incarnation() uint64 { return m.parts.home.identity.Incarnation }

// open opens the log and what needs it.
func (m *Stepped) open(t transport.Transport) (err error) {
	s, w := m.Server, m.world
	cfg, err := s.nodeConfig(t)
	if err != nil {
		return err
	}
	cfg.StateMachine = observed{s.parts.machine, w.Observe}
	node, err := raft.Open(cfg)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	node.Handle(callLease, s.answerLease)
	s.upkeep.handle(node)
	if m.Node, err = raft.NewStepper(node, w.Park); err != nil {
		return err
	}
	s.lead(m.Node)
	s.lessor.await = awaitParked(w.Park)
	s.wait = m.awaitChange
	v := s.view()
	change := &reconfiguration{view: v, node: m.Node, log: s.log, since: s.parts.transport.ActiveSince, steady: healthInterval, promoted: s.metrics.promotion, wait: s.wait, leaving: &s.parts.leaving}
	node.Handle(callMember, change.answer)
	m.services = []service{
		{&kvService, s}, {&leaseService, s}, {&authService, s},
		{&pb.Cluster_ServiceDesc, &clusterService{view: v, change: change}},
		{&pb.Maintenance_ServiceDesc, &maintenanceService{view: v}},
	}
	return nil
}

// observed is a state machine with somebody who looks on.
type observed struct {
	*applier
	see func([]raft.Entry)
}

func (o observed) Apply(entries []raft.Entry) {
	o.see(entries)
	o.applier.Apply(entries)
}

// awaitChange is Server.await for a task.
func (m *Stepped) awaitChange(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	over := false
	timer := m.clock.AfterFunc(d, func() { over = true })
	defer timer.Stop()
	return m.world.Park(func() bool { return over || closed(changed) || ctx.Err() != nil })
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func awaitParked(park func(func() bool) bool) func(ctx context.Context, gone, done <-chan struct{}) error {
	return func(ctx context.Context, gone, done <-chan struct{}) error {
		park(func() bool { return closed(gone) || closed(done) || ctx.Err() != nil })
		switch {
		case closed(gone):
			return api.ErrLeaseNotFound
		case closed(done):
			return api.ErrNotLeader
		case ctx.Err() != nil:
			return ctx.Err()
		}
		return api.ErrStopped
	}
}

// Invoke serves a unary RPC, named as in "etcdserverpb.KV/Put", from the
// request's bytes to the answer's. The interceptors that stand before a real one
// are left out.
func (m *Stepped) Invoke(ctx context.Context, method string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	service, name, _ := strings.Cut(method, "/")
	for _, s := range m.services {
		if s.desc.ServiceName != service {
			continue
		}
		for _, d := range s.desc.Methods {
			if d.MethodName == name {
				return m.invoke(ctx, s.impl, d, body, resp)
			}
		}
	}
	return fmt.Errorf("there is no method %s", method)
}

func (m *Stepped) invoke(ctx context.Context, impl any, d grpc.MethodDesc, body []byte, resp proto.Message) error {
	decode := func(into any) error { return codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(body)}, into) }
	answer, err := d.Handler(impl, ctx, decode, nil)
	if err != nil {
		return err
	}
	b, err := codec{}.Marshal(answer)
	if err != nil {
		return err
	}
	defer b.Free()
	return proto.Unmarshal(b.Materialize(), resp)
}

// KeepAlive renews a lease, asking the leader once. The TTL is 0 when there is no
// such lease.
func (m *Stepped) KeepAlive(ctx context.Context, id api.LeaseID) (ttl int64, err error) {
	state, err := m.askMember(ctx, m.node.Status().Leader, leaseQuestion{id: id, renew: true})
	if errors.Is(err, api.ErrLeaseNotFound) {
		return 0, nil
	}
	return state.ttl, err
}

// Follow lets the lease clocks follow the node's leadership.
func (m *Stepped) Follow() { m.lessor.adjust(m.ctx) }

// LeasesDue reports whether there is work for ExpireLeases before its time.
func (m *Stepped) LeasesDue() bool {
	select {
	case <-m.lessor.kick:
		return true
	default:
		return false
	}
}

// ExpireLeases proposes what is due and returns when to call it again. It parks.
func (m *Stepped) ExpireLeases() time.Duration { return m.lessor.work() }

// CheckSpace is one look at the size of the store: at its quota the member raises
// its alarm, or clears it. It parks.
func (m *Stepped) CheckSpace() { m.upkeep.checkSpace(m.ctx) }

// Failure is what made the member stop, if anything has.
func (m *Stepped) Failure() error {
	select {
	case err := <-m.parts.fatal:
		return err
	default:
		return nil
	}
}

// Close ends the member in good order; its store flushes.
func (m *Stepped) Close() error {
	m.end()
	s := m.Store()
	return errors.Join(m.Node.Stop(), s.Flush(), s.Close(), m.parts.storage.engine.Close(), m.parts.home.Close())
}

// LeaseLeft is one lease of a batch of expiries or checkpoints.
type LeaseLeft struct {
	ID        api.LeaseID
	Remaining int64
}

// Logged is what a command of the log asks for.
type Logged struct {
	// Request is etcd's message, nil for what is only this project's.
	Request proto.Message
	// Own: a member asks for it by itself, not for a client.
	Own bool
	// Expire and Checkpoint are what the leader of Term says about leases; void in
	// an entry of another term.
	Term               api.Term
	Expire, Checkpoint []LeaseLeft
}

// ReadCommand tells what a command of the log asks for.
func ReadCommand(c *raft.Command) (Logged, error) {
	var l Logged
	switch c.Kind {
	case commandPut:
		l.Request = &pb.PutRequest{}
	case commandDelete:
		l.Request = &pb.DeleteRangeRequest{}
	case commandTxn:
		l.Request = &pb.TxnRequest{}
	case commandCompact:
		l.Request = &pb.CompactionRequest{}
	case commandLeaseGrant:
		l.Request = &pb.LeaseGrantRequest{}
	case commandLeaseRevoke:
		l.Request = &pb.LeaseRevokeRequest{}
	case commandAlarm, commandQuotaAlarm:
		l.Request, l.Own = &pb.AlarmRequest{}, c.Kind == commandQuotaAlarm
	case commandLeaseExpire, commandLeaseCheckpoint:
		batch, err := decodeLeaseBatch(c.Body)
		if err != nil {
			return l, err
		}
		l.Term = batch.term
		for _, lease := range batch.leases {
			left := LeaseLeft{lease.id, lease.remaining}
			if c.Kind == commandLeaseExpire {
				l.Expire = append(l.Expire, left)
			} else {
				l.Checkpoint = append(l.Checkpoint, left)
			}
		}
		return l, nil
	default:
		return l, nil
	}
	return l, proto.Unmarshal(c.Body, l.Request)
}

// SteppedWatches is a Watch RPC: watches are made on the stream, and Poll brings
// the answers, from the encoded messages.
type SteppedWatches struct {
	*mvcc.WatchStream
	sender *watchSender
	got    gotStream
}

// gotStream keeps what is sent on it.
type gotStream struct {
	grpc.ServerStream // nil: nothing but SendMsg is called
	answers           []*pb.WatchResponse
}

func (g *gotStream) SendMsg(msg any) error {
	answer := &pb.WatchResponse{}
	if err := proto.Unmarshal(msg.(*Encoded).Buffers.Materialize(), answer); err != nil {
		return err
	}
	g.answers = append(g.answers, answer)
	return nil
}

// Watches opens a Watch RPC on the member. It must be closed.
func (m *Stepped) Watches() *SteppedWatches {
	w := &SteppedWatches{WatchStream: m.Store().NewWatchStream()}
	w.sender = newWatchSender(m.watches(), &w.got)
	return w
}

// Poll returns the next answers, none when there is nothing to tell.
func (w *SteppedWatches) Poll() ([]*pb.WatchResponse, error) {
	d, ok, err := w.WatchStream.Poll()
	if err != nil || !ok {
		return nil, err
	}
	if err := w.sender.send(d, w.WatchStream); err != nil {
		return nil, err
	}
	out := w.got.answers
	w.got.answers = nil
	return out, nil
}
