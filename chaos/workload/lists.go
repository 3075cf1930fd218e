package workload

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

const (
	lists      = 4  // that grow at a time
	listLength = 60 // at which clients go on with a new list
)

// Lists reads lists and appends to them. An append is a transaction guarded by
// all that it rests on: one list or several. The client knows what it saw last
// and tries with that, so many guards fail.
type Lists struct {
	tagger
	known map[string]known
	round int // of lists; those before are full
}

// NewLists makes a client's part.
func NewLists(client int, r *rand.Rand) *Lists {
	return &Lists{tagger: tagger{client: client, r: r}, known: map[string]known{}}
}

func (l *Lists) key() string {
	return fmt.Sprintf("%s%d/%d", oracle.ListPrefix, l.round, l.r.IntN(lists))
}

// keys are one to three lists.
func (l *Lists) keys() (out []string) {
	used := map[string]bool{}
	for range 1 + l.r.IntN(3) {
		if k := l.key(); !used[k] {
			used[k] = true
			out = append(out, k)
		}
	}
	return out
}

// Next appends or reads.
func (l *Lists) Next() (string, proto.Message) {
	keys := l.keys()
	q := &pb.TxnRequest{}
	for _, k := range keys {
		q.Failure = append(q.Failure, rangeOp(&pb.RangeRequest{Key: []byte(k)}))
	}
	if l.r.IntN(3) == 0 {
		q.Success, q.Failure = q.Failure, nil // it only reads
		return methodTxn, q
	}
	tag := l.tag()
	writes := 1 + l.r.IntN(len(keys))
	for i, k := range keys {
		was := l.known[k]
		q.Compare = append(q.Compare, changedAt(k, was.mod))
		if i < writes {
			value := strings.TrimSpace(was.value + " " + tag)
			q.Success = append(q.Success, putOp(&pb.PutRequest{Key: []byte(k), Value: []byte(value)}))
		} else {
			q.Success = append(q.Success, rangeOp(&pb.RangeRequest{Key: []byte(k)}))
		}
	}
	return methodTxn, q
}

// Learn keeps what the lists are.
func (l *Lists) Learn(op *history.Op) {
	q, ok := op.Request.(*pb.TxnRequest)
	if !ok || op.Outcome != history.OK {
		return
	}
	learnTxn(l.known, q, op.Response.(*pb.TxnResponse))
	for key, k := range l.known {
		if strings.Count(k.value, " ") >= listLength {
			l.round = max(l.round, roundOf(key)+1)
		}
	}
	maps.DeleteFunc(l.known, func(key string, _ known) bool { return roundOf(key) < l.round })
}

func roundOf(key string) (round int) {
	if _, err := fmt.Sscanf(key, oracle.ListPrefix+"%d/", &round); err != nil {
		return -1 // not a list
	}
	return round
}
