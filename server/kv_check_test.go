package server

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func txnOp(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func ops(list ...*pb.RequestOp) []*pb.RequestOp { return list }

func decodeTxn(t testing.TB, m *pb.TxnRequest) *txnRequest {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := new(txnRequest)
	if err := r.decode(b); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRangeChecks(t *testing.T) {
	for _, c := range []struct {
		r      rangeRequest
		want   error
		stream error
	}{
		{r: rangeRequest{key: []byte("a")}},
		{r: rangeRequest{}, want: api.ErrEmptyKey, stream: api.ErrEmptyKey},
		{r: rangeRequest{end: []byte("a"), sortOrder: 9}, want: api.ErrEmptyKey, stream: api.ErrEmptyKey},
		{r: rangeRequest{key: []byte("a"), sortOrder: 3}, want: api.ErrInvalidSortOption, stream: api.ErrInvalidSortOption},
		{r: rangeRequest{key: []byte("a"), sortOrder: -1}, want: api.ErrInvalidSortOption, stream: api.ErrInvalidSortOption},
		{r: rangeRequest{key: []byte("a"), sortTarget: 5}, want: api.ErrInvalidSortOption, stream: api.ErrInvalidSortOption},
		{r: rangeRequest{key: []byte("a"), sortOrder: 1, sortTarget: 0}},
		{r: rangeRequest{key: []byte("a"), sortTarget: 4}},
		{r: rangeRequest{key: []byte("a"), sortOrder: 2}, stream: errStreamSorted},
		{r: rangeRequest{key: []byte("a"), sortOrder: 1, sortTarget: 1}, stream: errStreamSorted},
		{r: rangeRequest{key: []byte("a"), sortOrder: 2, minMod: 1}, stream: errStreamSorted},
		{r: rangeRequest{key: []byte("a"), maxMod: 1}, stream: errStreamFiltered},
		{r: rangeRequest{key: []byte("a"), minCreate: -1}, stream: errStreamFiltered},
	} {
		if err := checkRange(&c.r); err != c.want {
			t.Errorf("%+v: %v, want %v", c.r, err, c.want)
		}
		if err := checkRangeStream(&c.r); err != c.stream {
			t.Errorf("stream of %+v: %v, want %v", c.r, err, c.stream)
		}
	}
}

func TestPutChecks(t *testing.T) {
	for _, c := range []struct {
		r    putRequest
		want error
	}{
		{putRequest{key: []byte("a")}, nil},
		{putRequest{ignoreValue: true, value: []byte("v")}, api.ErrEmptyKey},
		{putRequest{key: []byte("a"), ignoreValue: true, value: []byte("v"), ignoreLease: true, lease: 1}, api.ErrValueProvided},
		{putRequest{key: []byte("a"), ignoreValue: true, ignoreLease: true, lease: 1}, api.ErrLeaseProvided},
		{putRequest{key: []byte("a"), ignoreValue: true, ignoreLease: true}, nil},
	} {
		if err := checkPut(&c.r); err != c.want {
			t.Errorf("%+v: %v, want %v", c.r, err, c.want)
		}
	}
}

func TestTxnChecks(t *testing.T) {
	many := func(n int) (list []*pb.RequestOp) {
		for i := range n {
			list = append(list, putOp(fmt.Sprint("k", i)))
		}
		return list
	}
	compares := func(n int) (list []*pb.Compare) {
		for range n {
			list = append(list, &pb.Compare{Key: []byte("a")})
		}
		return list
	}
	nest := func(depth int) *pb.TxnRequest {
		r := &pb.TxnRequest{}
		for range depth {
			r = &pb.TxnRequest{Success: ops(txnOp(r))}
		}
		return r
	}
	badSort := rangeOp(&pb.RangeRequest{Key: []byte("a"), SortOrder: 7})
	for name, c := range map[string]struct {
		r    *pb.TxnRequest
		want error
	}{
		"empty":                           {&pb.TxnRequest{}, nil},
		"as many as allowed":              {&pb.TxnRequest{Compare: compares(4), Success: many(4), Failure: many(4)}, nil},
		"too many compares":               {&pb.TxnRequest{Compare: compares(5)}, api.ErrTooManyOps},
		"too many in success":             {&pb.TxnRequest{Success: many(5)}, api.ErrTooManyOps},
		"too many in failure":             {&pb.TxnRequest{Failure: many(5)}, api.ErrTooManyOps},
		"too many before an empty key":    {&pb.TxnRequest{Compare: make([]*pb.Compare, 5)}, api.ErrTooManyOps},
		"compare without key":             {&pb.TxnRequest{Compare: []*pb.Compare{{}}, Success: ops(badSort)}, api.ErrEmptyKey},
		"success before failure":          {&pb.TxnRequest{Success: ops(badSort), Failure: ops(putOp(""))}, api.ErrInvalidSortOption},
		"failure too":                     {&pb.TxnRequest{Failure: ops(putOp(""))}, api.ErrEmptyKey},
		"delete without key":              {&pb.TxnRequest{Success: ops(deleteOp("", "b"))}, api.ErrEmptyKey},
		"empty operation":                 {&pb.TxnRequest{Success: ops(&pb.RequestOp{})}, api.ErrKeyNotFound},
		"nested: what the parent left":    {&pb.TxnRequest{Success: append(many(1), txnOp(&pb.TxnRequest{Success: many(2)}))}, nil},
		"nested: more than it left":       {&pb.TxnRequest{Success: append(many(1), txnOp(&pb.TxnRequest{Success: many(3)}))}, api.ErrTooManyOps},
		"nested: compares of parent":      {&pb.TxnRequest{Compare: compares(3), Success: ops(txnOp(&pb.TxnRequest{Success: many(2)}))}, api.ErrTooManyOps},
		"nested: as deep as can be":       {nest(4), nil},
		"nested: deeper":                  {&pb.TxnRequest{Success: ops(txnOp(&pb.TxnRequest{Success: ops(txnOp(&pb.TxnRequest{Success: ops(txnOp(&pb.TxnRequest{Success: ops(txnOp(&pb.TxnRequest{Success: ops(putOp("a"))}))}))}))}))}, api.ErrTooManyOps},
		"nested: empty operation":         {&pb.TxnRequest{Success: ops(txnOp(&pb.TxnRequest{Failure: ops(&pb.RequestOp{})}))}, api.ErrKeyNotFound},
		"overlap is looked for after all": {&pb.TxnRequest{Success: append(ops(putOp("a"), putOp("a")), badSort)}, api.ErrInvalidSortOption},
	} {
		if err := checkTxn(decodeTxn(t, c.r), 4); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	then := func(list ...*pb.RequestOp) *pb.RequestOp { return txnOp(&pb.TxnRequest{Success: list}) }
	both := func(a, b *pb.RequestOp) *pb.RequestOp {
		return txnOp(&pb.TxnRequest{Success: ops(a), Failure: ops(b)})
	}
	dup := error(api.ErrDuplicateKey)
	for name, c := range map[string]struct {
		ops  []*pb.RequestOp
		want error
	}{
		"one put":                                {ops(putOp("a")), nil},
		"two keys":                               {ops(putOp("a"), putOp("b")), nil},
		"a key twice":                            {ops(putOp("a"), putOp("b"), putOp("a")), dup},
		"put and delete":                         {ops(putOp("a"), deleteOp("a", "")), dup},
		"delete and put":                         {ops(deleteOp("a", ""), putOp("a")), dup},
		"put in a deleted range":                 {ops(deleteOp("a", "c"), putOp("b")), dup},
		"put at the end of a deleted range":      {ops(deleteOp("a", "c"), putOp("c")), nil},
		"put before it":                          {ops(deleteOp("b", "c"), putOp("a")), nil},
		"put just after a deleted key":           {ops(deleteOp("a", ""), putOp("a\x00")), nil},
		"deletes overlap":                        {ops(deleteOp("a", "c"), deleteOp("b", "d")), nil},
		"put in the joined ranges":               {ops(deleteOp("a", "c"), deleteOp("b", "d"), putOp("cc")), dup},
		"range turned around covers none":        {ops(deleteOp("c", "a"), putOp("b")), nil},
		"etcd does not see from-key":             {ops(deleteOp("a", "\x00"), putOp("b")), nil},
		"etcd does not see all keys":             {ops(deleteOp("\x00", "\x00"), putOp("b")), nil},
		"put in both branches":                   {ops(both(putOp("a"), putOp("a"))), nil},
		"put in both branches and above":         {ops(both(putOp("a"), putOp("b")), putOp("b")), dup},
		"put in sibling transactions":            {ops(then(putOp("a")), then(putOp("a"))), dup},
		"put in sibling's other branch":          {ops(then(putOp("a")), both(putOp("b"), putOp("a"))), dup},
		"nested put in a delete above":           {ops(then(putOp("a")), deleteOp("a", "")), dup},
		"nested delete, put above":               {ops(then(deleteOp("a", "b")), putOp("a")), dup},
		"nested delete, later sibling put":       {ops(then(deleteOp("a", "")), then(putOp("a"))), dup},
		"nested put, later sibling delete":       {ops(then(putOp("a")), then(deleteOp("a", ""))), nil},
		"delete in one branch, put in the other": {ops(both(deleteOp("a", ""), putOp("a"))), nil},
		"within a nested one":                    {ops(then(putOp("a"), putOp("a"))), dup},
		"within a nested failure":                {ops(txnOp(&pb.TxnRequest{Failure: ops(putOp("a"), deleteOp("a", ""))})), dup},
		"three levels":                           {ops(then(then(putOp("a"))), putOp("a")), dup},
	} {
		if err := checkOverlaps(decodeTxn(t, &pb.TxnRequest{Success: c.ops})); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s in success: %v, want %v", name, err, c.want)
		}
		if err := checkOverlaps(decodeTxn(t, &pb.TxnRequest{Failure: c.ops})); (err == nil) != (c.want == nil) {
			t.Errorf("%s in failure: %v, want %v", name, err, c.want)
		}
	}
}

// TestIntervals holds the set against a list that is searched from end to end.
func TestIntervals(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	key := func() []byte {
		k := make([]byte, 1+rng.IntN(2))
		for i := range k {
			k[i] = byte('a' + rng.IntN(6))
		}
		return k
	}
	for round := range 300 {
		var set, part intervals
		var list []interval
		for range rng.IntN(12) {
			begin, end := key(), key()
			if rng.IntN(3) == 0 {
				end = nil
			}
			to := &set
			if rng.IntN(2) == 0 {
				to = &part
			}
			to.add(begin, end)
			if end == nil {
				end = append(bytes.Clone(begin), 0)
			}
			list = append(list, interval{begin, end})
			if rng.IntN(4) == 0 {
				set.cover("c") // sorts in between
			}
		}
		set.union(&part)
		for range 40 {
			k := key()
			want := false
			for _, iv := range list {
				want = want || bytes.Compare(iv.begin, k) <= 0 && bytes.Compare(k, iv.end) < 0
			}
			if got := set.cover(string(k)); got != want {
				t.Fatalf("round %d: cover(%q) is %v, want %v (%q)", round, k, got, want, list)
			}
		}
	}
}
