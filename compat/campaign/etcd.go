package campaign

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/load"
)

// etcdConn talks through etcd's client, with its balancer and its retries.
type etcdConn struct {
	*grpc.ClientConn
	kv pb.KVClient // knows that reads may be asked again
}

// Invoke makes a unary call.
func (c etcdConn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	if method != pb.KV_Range_FullMethodName {
		return c.ClientConn.Invoke(ctx, method, in, out, opts...)
	}
	r, err := c.kv.Range(ctx, in.(*pb.RangeRequest), opts...)
	if err == nil {
		proto.Merge(out.(proto.Message), r)
	}
	return err
}

func dialEtcd(endpoints []string) (load.Conn, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second, MaxCallRecvMsgSize: 1 << 30})
	if err != nil {
		return load.Conn{}, err
	}
	conn := etcdConn{c.ActiveConnection(), clientv3.RetryKVClient(c)}
	return load.Conn{ClientConnInterface: conn, Name: "clientv3", Outcome: history.OutcomeOf, Close: c.Close}, nil
}
