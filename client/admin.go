package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Cluster manages the members. Its answers are etcd's messages.
type Cluster struct{ c *Client }

// Cluster returns the client's way to the members.
func (c *Client) Cluster() Cluster { return Cluster{c} }

// Members returns the members, as a majority knows them.
func (m Cluster) Members(ctx context.Context) ([]*pb.Member, error) {
	out := &pb.MemberListResponse{}
	err := m.c.send(ctx, pb.Cluster_MemberList_FullMethodName, &pb.MemberListRequest{Linearizable: true}, out)
	return out.Members, err
}

// Sync makes the client URLs that the members advertise the client's endpoints.
func (m Cluster) Sync(ctx context.Context) error {
	members, err := m.Members(ctx)
	if err != nil {
		return err
	}
	var all []string
	for _, one := range members {
		if !one.IsLearner {
			all = append(all, one.ClientURLs...)
		}
	}
	return m.c.SetEndpoints(all...)
}

// Add adds a voting member, or a learner, that will be found at these URLs.
func (m Cluster) Add(ctx context.Context, learner bool, peerURLs ...string) (*pb.MemberAddResponse, error) {
	out := &pb.MemberAddResponse{}
	in := &pb.MemberAddRequest{PeerURLs: peerURLs, IsLearner: learner}
	return out, m.c.send(ctx, pb.Cluster_MemberAdd_FullMethodName, in, out)
}

// Remove removes a member for good.
func (m Cluster) Remove(ctx context.Context, id uint64) error {
	return m.c.send(ctx, pb.Cluster_MemberRemove_FullMethodName, &pb.MemberRemoveRequest{ID: id}, &pb.MemberRemoveResponse{})
}

// Update tells where a member is found from now on.
func (m Cluster) Update(ctx context.Context, id uint64, peerURLs ...string) error {
	in := &pb.MemberUpdateRequest{ID: id, PeerURLs: peerURLs}
	return m.c.send(ctx, pb.Cluster_MemberUpdate_FullMethodName, in, &pb.MemberUpdateResponse{})
}

// Promote gives a learner its vote.
func (m Cluster) Promote(ctx context.Context, id uint64) error {
	return m.c.send(ctx, pb.Cluster_MemberPromote_FullMethodName, &pb.MemberPromoteRequest{ID: id}, &pb.MemberPromoteResponse{})
}

// Maintenance looks after single members. Endpoints are those of the client;
// answers are etcd's messages.
type Maintenance struct{ c *Client }

// Maintenance returns the client's way to single members.
func (c *Client) Maintenance() Maintenance { return Maintenance{c} }

// at sends a request to one endpoint.
func (m Maintenance) at(ctx context.Context, endpoint, method string, in, out proto.Message) error {
	how := requestOf(method, in)
	how.at = endpoint
	return m.c.invoke(ctx, how, in, out)
}

// Status returns how the member at an endpoint is.
func (m Maintenance) Status(ctx context.Context, endpoint string) (*pb.StatusResponse, error) {
	out := &pb.StatusResponse{}
	return out, m.at(ctx, endpoint, pb.Maintenance_Status_FullMethodName, &pb.StatusRequest{}, out)
}

// Alarms returns the alarms that are raised.
func (m Maintenance) Alarms(ctx context.Context) ([]*pb.AlarmMember, error) {
	out := &pb.AlarmResponse{}
	err := m.c.send(ctx, pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{Action: pb.AlarmRequest_GET}, out)
	return out.Alarms, err
}

// Disarm ends an alarm and returns what was ended.
func (m Maintenance) Disarm(ctx context.Context, alarm *pb.AlarmMember) ([]*pb.AlarmMember, error) {
	out := &pb.AlarmResponse{}
	in := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarm.MemberID, Alarm: alarm.Alarm}
	return out.Alarms, m.c.send(ctx, pb.Maintenance_Alarm_FullMethodName, in, out)
}

// Defragment rewrites the database of the member at an endpoint. etcd's members
// serve nobody meanwhile.
func (m Maintenance) Defragment(ctx context.Context, endpoint string) error {
	return m.at(ctx, endpoint, pb.Maintenance_Defragment_FullMethodName, &pb.DefragmentRequest{}, &pb.DefragmentResponse{})
}

// HashKV returns a hash of all keys and their history up to a revision, to
// compare members by.
func (m Maintenance) HashKV(ctx context.Context, endpoint string, rev Revision) (*pb.HashKVResponse, error) {
	out := &pb.HashKVResponse{}
	return out, m.at(ctx, endpoint, pb.Maintenance_HashKV_FullMethodName, &pb.HashKVRequest{Revision: int64(rev)}, out)
}

// MoveLeader makes another member lead. The endpoint must be the leader's.
func (m Maintenance) MoveLeader(ctx context.Context, endpoint string, to uint64) error {
	return m.at(ctx, endpoint, pb.Maintenance_MoveLeader_FullMethodName, &pb.MoveLeaderRequest{TargetID: to}, &pb.MoveLeaderResponse{})
}

// Downgrade validates, enables or cancels a downgrade to a version.
func (m Maintenance) Downgrade(ctx context.Context, action pb.DowngradeRequest_DowngradeAction, version string) (*pb.DowngradeResponse, error) {
	out := &pb.DowngradeResponse{}
	in := &pb.DowngradeRequest{Action: action, Version: version}
	return out, m.c.send(ctx, pb.Maintenance_Downgrade_FullMethodName, in, out)
}

// ErrSnapshotDamaged: what arrived is not what the member sent.
var ErrSnapshotDamaged = errors.New("the snapshot is damaged")

// SnapshotInfo is what Snapshot wrote.
type SnapshotInfo struct {
	Size    int64
	Version string // of the store's files; empty when the member does not say
}

// Snapshot writes a snapshot of the member at an endpoint, or of any member if
// it is empty: a database file with a SHA-256 at its end, as etcd's tools have
// it. What was written counts only when the error is nil: the hash fits then.
func (m Maintenance) Snapshot(ctx context.Context, endpoint string, to io.Writer) (SnapshotInfo, error) {
	how := requestOf(pb.Maintenance_Snapshot_FullMethodName, nil)
	how.stream, how.at = true, endpoint
	out := snapshotWriter{to: to, hash: sha256.New()}
	err := m.c.try(ctx, how, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
		for err == nil {
			var part *pb.SnapshotResponse
			if part, err = stream.Recv(); err == nil {
				out.Version = cmp.Or(part.Version, out.Version)
				err = out.write(part.Blob)
			}
		}
		if err == io.EOF {
			return out.check()
		}
		return err
	}, nil)
	var e *Error
	if errors.As(err, &e) {
		e.Unknown = false // it changes nothing; it is not repeated because of what was written
	}
	return out.SnapshotInfo, err
}

// snapshotWriter passes a snapshot on and hashes all but its last bytes, which
// are the hash.
type snapshotWriter struct {
	SnapshotInfo
	to   io.Writer
	hash hash.Hash
	tail []byte // not hashed yet: at most sha256.Size bytes
}

func (w *snapshotWriter) write(p []byte) error {
	n, err := w.to.Write(p)
	w.Size += int64(n)
	w.tail = append(w.tail, p...)
	if keep := len(w.tail) - sha256.Size; keep > 0 {
		w.hash.Write(w.tail[:keep])
		w.tail = append(w.tail[:0], w.tail[keep:]...)
	}
	return err
}

// sector is the unit of a database file's size.
const sector = 512

func (w *snapshotWriter) check() error {
	switch {
	case w.Size%sector != sha256.Size:
		return fmt.Errorf("%w: %d bytes are no database and a hash", ErrSnapshotDamaged, w.Size)
	case string(w.hash.Sum(nil)) != string(w.tail):
		return fmt.Errorf("%w: its hash does not fit", ErrSnapshotDamaged)
	}
	return nil
}
