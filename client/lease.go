package client

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// Lease is what the cluster knows of a lease.
type Lease struct {
	ID      LeaseID
	Granted time.Duration // what each renewal gives
	Left    time.Duration // until it expires
	Keys    []string      // that end with it, if they were asked for
}

// Grant makes a lease that lives for ttl, in whole seconds, unless it is renewed.
// NewSession makes one and renews it. The cluster may grant more than was asked.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (Lease, error) {
	return c.GrantID(ctx, 0, ttl)
}

// GrantID makes a lease with an id of the caller's choice; 0 lets the cluster
// choose.
func (c *Client) GrantID(ctx context.Context, id LeaseID, ttl time.Duration) (Lease, error) {
	in := &pb.LeaseGrantRequest{ID: int64(id), TTL: int64((ttl + time.Second - 1) / time.Second)}
	out := &pb.LeaseGrantResponse{}
	if err := c.send(ctx, pb.Lease_LeaseGrant_FullMethodName, in, out); err != nil {
		return Lease{}, err
	}
	granted := time.Duration(out.TTL) * time.Second
	return Lease{ID: LeaseID(out.ID), Granted: granted, Left: granted}, nil
}

// Revoke ends a lease and deletes its keys.
func (c *Client) Revoke(ctx context.Context, id LeaseID) error {
	in := &pb.LeaseRevokeRequest{ID: int64(id)}
	return c.send(ctx, pb.Lease_LeaseRevoke_FullMethodName, in, &pb.LeaseRevokeResponse{})
}

// TimeToLive tells about a lease; keys adds the keys that depend on it, of all
// namespaces. A lease that does not exist is api.ErrLeaseNotFound.
func (c *Client) TimeToLive(ctx context.Context, id LeaseID, keys bool) (Lease, error) {
	in := &pb.LeaseTimeToLiveRequest{ID: int64(id), Keys: keys}
	out := &pb.LeaseTimeToLiveResponse{}
	if err := c.send(ctx, pb.Lease_LeaseTimeToLive_FullMethodName, in, out); err != nil {
		return Lease{}, err
	}
	if out.TTL < 0 {
		return Lease{}, &Error{Op: pb.Lease_LeaseTimeToLive_FullMethodName, Err: api.ErrLeaseNotFound}
	}
	l := Lease{ID: id, Granted: time.Duration(out.GrantedTTL) * time.Second, Left: time.Duration(out.TTL) * time.Second}
	for _, k := range out.Keys {
		l.Keys = append(l.Keys, string(k))
	}
	return l, nil
}

// Leases returns every lease of the cluster.
func (c *Client) Leases(ctx context.Context) ([]LeaseID, error) {
	out := &pb.LeaseLeasesResponse{}
	if err := c.send(ctx, pb.Lease_LeaseLeases_FullMethodName, &pb.LeaseLeasesRequest{}, out); err != nil {
		return nil, err
	}
	ids := make([]LeaseID, len(out.Leases))
	for i, l := range out.Leases {
		ids[i] = LeaseID(l.ID)
	}
	return ids, nil
}

// Renew gives a lease its full time once more and returns that. A lease that is
// gone is ErrLeaseLost.
func (c *Client) Renew(ctx context.Context, id LeaseID) (time.Duration, error) {
	out := &pb.LeaseKeepAliveResponse{}
	how := requestOf(pb.Lease_LeaseKeepAlive_FullMethodName, nil)
	err := c.try(ctx, how, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil && err != io.EOF {
			return err
		}
		out, err = stream.Recv()
		return err
	}, nil)
	switch {
	case err != nil:
		return 0, err
	case out.TTL <= 0:
		return 0, &Error{Op: how.method, Err: fmt.Errorf("%w: %x", ErrLeaseLost, id)}
	}
	return time.Duration(out.TTL) * time.Second, nil
}
