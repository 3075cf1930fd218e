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
		c.learnTxn(op.Request.(*pb.TxnRequest), r)
	case *pb.RangeResponse:
		if q := op.Request.(*pb.RangeRequest); len(q.RangeEnd) == 0 && q.Revision == 0 && !q.Serializable {
			c.learnRange(string(q.Key), r)
		}
	case *pb.LeaseGrantResponse:
		c.leases = append(c.leases, r.ID)
	case *pb.LeaseKeepAliveResponse:
		if r.TTL == 0 {
			c.leases = slices.DeleteFunc(c.leases, func(id int64) bool { return id == r.ID })
		}
	}
}

func (c *Mixed) learnTxn(q *pb.TxnRequest, r *pb.TxnResponse) {
	ops := q.Failure
	if r.Succeeded {
		ops = q.Success
	}
	for i, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			p := op.GetRequestPut()
			c.known[string(p.Key)] = known{r.Header.Revision, string(p.Value)}
		case op.GetRequestRange() != nil && len(op.GetRequestRange().RangeEnd) == 0:
			c.learnRange(string(op.GetRequestRange().Key), r.Responses[i].GetResponseRange())
		}
	}
}

func (c *Mixed) learnRange(key string, r *pb.RangeResponse) {
	delete(c.known, key)
	if len(r.Kvs) > 0 {
		c.known[key] = known{r.Kvs[0].ModRevision, string(r.Kvs[0].Value)}
	}
}
