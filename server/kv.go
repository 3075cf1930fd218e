package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/planted"
)

// kvService is etcdserverpb.KV with our own requests and encoded answers in
// place of the generated messages.
var kvService = grpc.ServiceDesc{
	ServiceName: "etcdserverpb.KV",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		unary("etcdserverpb.KV", "Range", (*Server).Range),
		unary("etcdserverpb.KV", "Put", (*Server).Put),
		unary("etcdserverpb.KV", "DeleteRange", (*Server).DeleteRange),
		unary("etcdserverpb.KV", "Txn", (*Server).Txn),
		unary("etcdserverpb.KV", "Compact", (*Server).Compact),
	},
	Streams: []grpc.StreamDesc{{
		StreamName:    "RangeStream",
		ServerStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			r := new(rangeRequest)
			if err := stream.RecvMsg(r); err != nil {
				return err
			}
			s := srv.(*Server)
			s.heatOf(stream.Context(), r, 0)
			return rpcError(s.rangeStream(r, stream))
		},
	}},
	Metadata: "rpc.proto",
}

// unary describes a method whose request is decoded by hand.
func unary[R any, P interface {
	*R
	request
}](service, name string, call func(*Server, context.Context, P) (*Encoded, error)) grpc.MethodDesc {
	info := &grpc.UnaryServerInfo{FullMethod: "/" + service + "/" + name}
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		s := srv.(*Server)
		req := P(new(R))
		if err := dec(req); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, _ any) (any, error) {
			if err := s.admitLearner(req); err != nil {
				return nil, err
			}
			answer, err := call(s, ctx, req)
			if err != nil {
				return nil, rpcError(err)
			}
			return answer, nil
		}
		if intercept == nil {
			return handle(ctx, req)
		}
		return intercept(ctx, req, info, handle)
	}}
}

// Range reads. A linearizable read first waits until this member has published
// everything that was acknowledged anywhere before.
func (s *Server) Range(ctx context.Context, r *rangeRequest) (*Encoded, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	if err := s.catchUp(ctx, r); err != nil {
		return nil, err
	}
	return s.rangeNow(ctx, r)
}

// catchUp waits until what the member has published is new enough for the read.
func (s *Server) catchUp(ctx context.Context, r *rangeRequest) error {
	if r.serializable || planted.ReadWithoutIndex {
		return nil
	}
	return s.node.ReadBarrier(ctx)
}

// rangeNow answers a range that was checked from what is published.
func (s *Server) rangeNow(ctx context.Context, r *rangeRequest) (*Encoded, error) {
	who, err := s.permitRead(ctx, r)
	if err != nil {
		return nil, err
	}
	answer, err := s.read(ctx, r)
	if err == nil {
		err = s.fresh(who)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// read answers a range from the state of the moment.
func (s *Server) read(ctx context.Context, r *rangeRequest) (*Encoded, error) {
	begin := s.clock.Now()
	answer, err := s.readNow(ctx, r)
	if took := s.metrics.store.read(err, begin); took > s.cfg.WarnApplyDuration {
		s.slowRead(r, took, err)
	}
	return answer, err
}

func (s *Server) readNow(ctx context.Context, r *rangeRequest) (*Encoded, error) {
	tx, err := s.Store().Read(max(r.revision, 0))
	if err != nil {
		return nil, err
	}
	if last := tx.Revision(); planted.StaleGoesBack && r.serializable && r.revision == 0 && last%4 == 0 && last-2 > tx.CompactRevision() {
		tx.Release()
		if tx, err = s.Store().ReadBack(last - 2); err != nil {
			return nil, err
		}
	}
	defer tx.Release()
	term := s.node.Status().Term
	if r.single() && !r.countOnly && !r.sorts() && !r.filtered() {
		return s.get(tx, r, term)
	}
	a := s.answers.begin(ctx)
	a.keep(s.appendFullHeader(a.room(headerBytes), tx.Revision(), term))
	shown := 0
	tail, err := r.evaluatePages(ctx, tx, func(it mvcc.Item, rec mvcc.Record) error {
		shown++
		return a.kv(ctx, &it, rec)
	}, func(p mvcc.Page) error {
		shown += p.Keys
		return a.page(ctx, p)
	})
	if err != nil {
		a.drop()
		return nil, err
	}
	s.load.listed(shown, a.len())
	if tail.more && r.inKeyOrder() {
		tx.Pin() // the client will ask for the next page of the same revision
	}
	b := appendBool(a.room(headerBytes), fieldRangeMore, tail.more)
	a.keep(appendInt(b, fieldRangeCount, tail.count))
	return a.done(), nil
}

// get answers a range of one key with one allocation of the exact size.
func (s *Server) get(tx *mvcc.ReadTxn, r *rangeRequest, term api.Term) (*Encoded, error) {
	it, ok := tx.Get(r.key)
	if !ok {
		return encodeBytes(s.appendFullHeader(make([]byte, 0, headerBytes), tx.Revision(), term)), nil
	}
	var b []byte
	if r.keysOnly {
		b = s.appendFullHeader(make([]byte, 0, headerBytes+itemBytes(&it)+8), tx.Revision(), term)
		var mark int
		b, mark = openMessage(b, fieldRangeKVs)
		b = closeMessage(appendItem(b, &it), mark)
	} else {
		rec, err := tx.Record(it)
		if err != nil {
			return nil, err
		}
		b = make([]byte, 0, headerBytes+3+protowire.SizeBytes(len(rec)))
		b = appendBytes(s.appendFullHeader(b, tx.Revision(), term), fieldRangeKVs, rec)
	}
	return encodeBytes(appendInt(b, fieldRangeCount, 1)), nil
}

// writer is a request that becomes a command.
type writer interface {
	request
	accessor
	// command is what goes into the log.
	command() (kind uint8, body []byte)
	// cost is what it may add to the store; 0: nothing.
	cost() int64
	// check looks at the fields.
	check(maxOps int) error
}

func (r *putRequest) command() (uint8, []byte)    { return commandPut, r.body }
func (r *deleteRequest) command() (uint8, []byte) { return commandDelete, r.body }
func (r *txnRequest) command() (uint8, []byte)    { return commandTxn, r.body }

func (r *putRequest) cost() int64  { return putCost(r) }
func (*deleteRequest) cost() int64 { return 0 }
func (r *txnRequest) cost() int64  { return txnCost(r) }

func (r *putRequest) check(int) error    { return checkPut(r) }
func (r *deleteRequest) check(int) error { return checkDelete(r) }
func (r *txnRequest) check(maxOps int) error {
	if err := checkTxn(r, maxOps); err != nil {
		return err
	}
	return checkOverlaps(r)
}

// checkWrite asks what can be asked before a write is proposed.
func (s *Server) checkWrite(ctx context.Context, w writer) error {
	if err := s.admitCost(ctx, w.cost()); err != nil {
		return err
	}
	return w.check(int(s.cfg.MaxTxnOps))
}

// write proposes a request whose answer is made by the apply step.
func (s *Server) write(ctx context.Context, w writer) (*Encoded, error) {
	if err := s.checkWrite(ctx, w); err != nil {
		return nil, err
	}
	kind, body := w.command()
	return s.propose(ctx, kind, body, w)
}

// Put proposes a put.
func (s *Server) Put(ctx context.Context, r *putRequest) (*Encoded, error) { return s.write(ctx, r) }

// DeleteRange proposes a delete.
func (s *Server) DeleteRange(ctx context.Context, r *deleteRequest) (*Encoded, error) {
	return s.write(ctx, r)
}

// Txn proposes a transaction, or reads here if it cannot write.
func (s *Server) Txn(ctx context.Context, r *txnRequest) (*Encoded, error) {
	if !r.readOnly() {
		return s.write(ctx, r)
	}
	if err := s.checkWrite(ctx, r); err != nil {
		return nil, err
	}
	return s.readTxn(ctx, r)
}

// readTxn evaluates a transaction of ranges against one published state.
func (s *Server) readTxn(ctx context.Context, r *txnRequest) (*Encoded, error) {
	if !r.serializable() {
		if err := s.node.ReadBarrier(ctx); err != nil {
			return nil, err
		}
	}
	who, err := s.permitRead(ctx, r)
	if err != nil {
		return nil, err
	}
	store := s.Store()
	tx, err := store.Read(0)
	if err != nil {
		return nil, err
	}
	defer tx.Release()
	x := txnRun{ctx: ctx, view: readView{tx, store}, wanted: true}
	path, err := x.prepare(x.view, r, nil)
	if err != nil {
		return nil, err
	}
	if _, err := x.run(r, path); err != nil {
		return nil, err
	}
	s.metrics.store.add(x.tally)
	if err := s.fresh(who); err != nil {
		return nil, err
	}
	return s.answer(x.b, tx.Revision(), s.node.Status().Term), nil
}

// readView is a read transaction as a transaction's operations see it.
type readView struct {
	*mvcc.ReadTxn
	store *mvcc.Store
}

func (v readView) readable(at api.Revision) error {
	return readable(at, v.Revision(), v.CompactRevision())
}

func (v readView) at(rev api.Revision) (keyspace, func(), error) {
	tx, err := v.store.Read(rev)
	if err != nil {
		return nil, nil, err
	}
	return tx, tx.Release, nil
}

func (v readView) leaseExists(id api.LeaseID) bool {
	_, ok := v.store.Lease(id)
	return ok
}

// compactRequest is etcdserverpb.CompactionRequest.
type compactRequest struct {
	body     []byte
	revision int64
	physical bool
}

func (r *compactRequest) decode(body []byte) error {
	var m pb.CompactionRequest
	r.body = body
	err := proto.Unmarshal(body, &m)
	r.revision, r.physical = m.Revision, m.Physical
	return err
}

// Compact proposes a compaction. It is answered when history is logically gone, or,
// if the client asks for that, when this member has deleted its records, too.
func (s *Server) Compact(ctx context.Context, r *compactRequest) (*Encoded, error) {
	answer, err := s.propose(ctx, commandCompact, r.body, nil)
	if err == nil && r.physical {
		err = s.reclaimed(ctx, api.Revision(r.revision))
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// reclaimed waits until a compaction at a revision has deleted its records.
func (s *Server) reclaimed(ctx context.Context, at api.Revision) error {
	for {
		done, further := s.Store().Reclaimed(at)
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return proposalError(ctx.Err())
		}
		// An installed snapshot brings another store, which the old one does not tell.
		if !s.wait(ctx, further, s.cfg.HeartbeatInterval) {
			return api.ErrStopped
		}
	}
}
