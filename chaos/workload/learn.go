package workload

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Learn keeps what an answer says of keys and leases.
func (c *Mixed) Learn(op *history.Op) {
	switch r := op.Response.(type) {
	case *pb.TxnResponse:
		learnTxn(c.known, op.Request.(*pb.TxnRequest), r)
	case *pb.RangeResponse:
		if q := op.Request.(*pb.RangeRequest); len(q.RangeEnd) == 0 && q.Revision == 0 && !q.Serializable {
			learnRange(c.known, string(q.Key), r)
		}
	case *pb.LeaseGrantResponse:
		c.leases = append(c.leases, r.ID)
	case *pb.LeaseKeepAliveResponse:
		if r.TTL == 0 {
			c.leases = slices.DeleteFunc(c.leases, func(id int64) bool { return id == r.ID })
		}
	}
}

// learnTxn keeps what the branch that was taken wrote and read of single keys.
func learnTxn(keys map[string]known, q *pb.TxnRequest, r *pb.TxnResponse) {
	ops := q.Failure
	if r.Succeeded {
		ops = q.Success
	}
	for i, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			p := op.GetRequestPut()
			keys[string(p.Key)] = known{r.Header.Revision, string(p.Value)}
		case op.GetRequestRange() != nil && len(op.GetRequestRange().RangeEnd) == 0:
			learnRange(keys, string(op.GetRequestRange().Key), r.Responses[i].GetResponseRange())
		}
	}
}

func learnRange(keys map[string]known, key string, r *pb.RangeResponse) {
	delete(keys, key)
	if len(r.Kvs) > 0 {
		keys[key] = known{r.Kvs[0].ModRevision, string(r.Kvs[0].Value)}
	}
}
