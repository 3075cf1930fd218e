package client

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api/keelsonpb"
)

// Conn carries etcd's generated clients, for requests and answers that this
// package has no words for:
//
//	resp, err := pb.NewClusterClient(c.Conn()).MemberList(ctx, &pb.MemberListRequest{})
//
// Unary requests have all that the client's own have: failover, safe retries,
// the way to the leader, tokens, errors. A stream is opened at one endpoint and
// ends with its connection. Keys are the store's, whatever the namespace.
func (c *Client) Conn() grpc.ClientConnInterface { return conn{c.core} }

type conn struct{ *core }

// Invoke makes a unary call.
func (c conn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	m, ok := in.(proto.Message)
	if !ok {
		return fmt.Errorf("client: %T is no protobuf message", in)
	}
	if answer, ok := out.(proto.Message); ok && len(opts) == 0 {
		return c.send(ctx, method, m, answer)
	}
	return c.try(ctx, requestOf(method, m), func(ctx context.Context, to *grpc.ClientConn) error {
		return to.Invoke(ctx, method, in, out, opts...)
	}, out)
}

// NewStream opens a stream.
func (c conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (s grpc.ClientStream, err error) {
	how := requestOf(method, nil)
	how.stream = true
	err = c.try(ctx, how, func(ctx context.Context, to *grpc.ClientConn) (err error) {
		s, err = to.NewStream(ctx, desc, method, opts...)
		return err
	}, nil)
	return s, err
}

// send makes a unary call of etcd's API.
func (c *core) send(ctx context.Context, method string, in, out proto.Message) error {
	return c.invoke(ctx, requestOf(method, in), in, out)
}

// known is how requests are treated. What is not listed changes something.
var known = map[string]request{
	pb.KV_Range_FullMethodName:       {effect: reads},
	pb.KV_RangeStream_FullMethodName: {effect: reads},
	pb.KV_Put_FullMethodName:         {effect: writes, piped: keelsonpb.Put},
	pb.KV_DeleteRange_FullMethodName: {effect: writes, piped: keelsonpb.DeleteRange},
	pb.KV_Txn_FullMethodName:         {effect: writes, piped: keelsonpb.Txn},
	pb.KV_Compact_FullMethodName:     {effect: writes},

	pb.Watch_Watch_FullMethodName: {effect: reads},

	pb.Lease_LeaseGrant_FullMethodName:      {effect: writes},
	pb.Lease_LeaseRevoke_FullMethodName:     {effect: writes},
	pb.Lease_LeaseKeepAlive_FullMethodName:  {effect: reads},
	pb.Lease_LeaseTimeToLive_FullMethodName: {effect: reads},
	pb.Lease_LeaseLeases_FullMethodName:     {effect: reads},

	pb.Cluster_MemberList_FullMethodName: {effect: reads},

	pb.Maintenance_Status_FullMethodName: {effect: reads, local: true},
	pb.Maintenance_Hash_FullMethodName:   {effect: reads, local: true},
	pb.Maintenance_HashKV_FullMethodName: {effect: reads, local: true},
	// Repeated, they would do again what takes long.
	pb.Maintenance_Snapshot_FullMethodName:   {effect: changes, local: true},
	pb.Maintenance_Defragment_FullMethodName: {effect: changes, local: true},

	pb.Auth_Authenticate_FullMethodName: {effect: reads, bare: true},
	pb.Auth_AuthStatus_FullMethodName:   {effect: reads},
	pb.Auth_UserGet_FullMethodName:      {effect: reads},
	pb.Auth_UserList_FullMethodName:     {effect: reads},
	pb.Auth_RoleGet_FullMethodName:      {effect: reads},
	pb.Auth_RoleList_FullMethodName:     {effect: reads},
}

// requestOf says how a request is treated; in may be nil.
func requestOf(method string, in proto.Message) request {
	r, listed := known[method]
	if !listed {
		r.effect = changes
	}
	r.method = method
	switch in := in.(type) {
	case *pb.RangeRequest:
		r.local = in.Serializable
		if len(in.RangeEnd) == 0 {
			r.piped = keelsonpb.Range // lists are large: each has a stream of its own
		}
	case *pb.MemberListRequest:
		r.local = !in.Linearizable
	case *pb.TxnRequest:
		if onlyReads(in) {
			r.effect = reads
		}
	case *pb.AlarmRequest:
		if in.Action == pb.AlarmRequest_GET {
			r.effect = reads
		}
	}
	return r
}
