package server

import (
	"context"
	"crypto/sha256"
	"hash"
	"log/slog"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// serves refuses what a learner does not answer.
func (s *maintenanceService) serves() error {
	if s.view.node.Status().Learner {
		return api.ErrNotSupportedForLearner
	}
	return nil
}

// Defragment rewrites this member's file without its free space. Nobody waits
// for it but its caller.
func (s *maintenanceService) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.serves(); err != nil {
		return nil, err
	}
	if err := s.view.upkeep.defragment(ctx); err != nil {
		return nil, rpcError(err)
	}
	return &pb.DefragmentResponse{}, nil // etcd's has no header either
}

// Hash hashes all of this member's state.
func (s *maintenanceService) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	if err := s.serves(); err != nil {
		return nil, err
	}
	member := s.view.upkeep.s
	done := member.metrics.timed(member.metrics.disk.hash)
	sum, rev, err := member.Store().Hash(ctx)
	done()
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.HashResponse{Header: s.view.header(rev), Hash: sum}, nil
}

// HashKV hashes the history up to a revision.
func (s *maintenanceService) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if err := s.serves(); err != nil {
		return nil, err
	}
	member := s.view.upkeep.s
	done := member.metrics.timed(member.metrics.disk.hashKV)
	h, rev, err := member.Store().HashKV(ctx, api.Revision(r.Revision))
	done()
	if err != nil {
		return nil, rpcError(err)
	}
	return &pb.HashKVResponse{
		Header: s.view.header(rev), Hash: h.Hash,
		CompactRevision: int64(h.Compact), HashRevision: int64(h.Revision),
	}, nil
}

// leaderMover is the part of raft.Node that hands leadership over by request.
type leaderMover interface {
	TransferLeaderTo(ctx context.Context, to api.MemberID) error
}

// MoveLeader makes another member lead. Only the leader can.
func (s *maintenanceService) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.serves(); err != nil {
		return nil, err
	}
	v := s.view
	if v.node.Status().Leader != v.id {
		return nil, api.ErrNotLeader
	}
	to := api.MemberID(r.TargetID)
	m, ok := v.members.find(to)
	mover, can := v.node.(leaderMover)
	if !ok || !can || m.Learner {
		return nil, api.ErrBadTransferee
	}
	for {
		changed := v.node.LeaderChanges()
		if v.node.Status().Leader == to {
			return &pb.MoveLeaderResponse{}, nil
		}
		err := mover.TransferLeaderTo(ctx, to)
		switch {
		case ctx.Err() != nil:
			return nil, api.ErrTimeoutLeaderTransfer
		case err == error(api.ErrNotLeader), err == nil:
			// Another member took over meanwhile; it may be passing leadership on.
		default:
			return nil, rpcError(err)
		}
		if v.node.Status().Leader == to {
			continue
		}
		settled := v.upkeep.s.clock.NewTimer(v.upkeep.s.cfg.ElectionTimeout)
		late := false
		select {
		case <-changed:
		case <-settled.C():
			l := v.node.Status().Leader
			late = l != 0 && l != v.id && l != to // elected for good: only that one can pass it on
		case <-ctx.Done():
			late = true
		}
		settled.Stop()
		if late {
			return nil, api.ErrTimeoutLeaderTransfer
		}
	}
}

// snapshotChunk is how much of a snapshot one message carries, as in etcd.
const snapshotChunk = 32 << 10

// Snapshot streams the database file as of the last revision, and then the
// SHA-256 of it, which is how etcdutl knows that a file is whole.
func (s *maintenanceService) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	u := s.view.upkeep
	snap, err := u.s.Store().Snapshot()
	if err != nil {
		return rpcError(err)
	}
	defer snap.Release()
	defer u.s.metrics.timed(u.s.metrics.disk.snapshot)()
	w := &snapshotWriter{
		stream: stream, left: snap.Size(), sum: sha256.New(), version: u.versions.current.Load().storage,
	}
	u.log.Info("sending a snapshot to a client", slog.Int64("bytes", w.left), slog.Int64("revision", int64(snap.Revision)))
	if _, err = snap.WriteTo(w); err == nil {
		err = w.finish()
	}
	return rpcError(err)
}

// snapshotWriter cuts what is written into messages.
type snapshotWriter struct {
	stream  pb.Maintenance_SnapshotServer
	version string
	left    int64 // bytes of the file that are not sent yet
	sum     hash.Hash
	buf     []byte
}

func (w *snapshotWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if w.buf == nil {
			w.buf = make([]byte, 0, snapshotChunk) // the stream may keep what it was given
		}
		k := min(len(p)-n, cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[n:n+k]...)
		n += k
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return len(p), nil
}

func (w *snapshotWriter) flush() error {
	w.sum.Write(w.buf)
	w.left -= int64(len(w.buf))
	err := w.stream.Send(&pb.SnapshotResponse{RemainingBytes: uint64(max(w.left, 0)), Blob: w.buf, Version: w.version})
	w.buf = nil
	return err
}

// finish sends the rest and the digest.
func (w *snapshotWriter) finish() error {
	if len(w.buf) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.stream.Send(&pb.SnapshotResponse{Blob: w.sum.Sum(nil), Version: w.version})
}
