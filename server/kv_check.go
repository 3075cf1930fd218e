package server

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// The checks of a request's fields that need no store. Their order decides
// which error a client sees when several apply, so it is etcd's.

func checkRange(r *rangeRequest) error {
	if len(r.key) == 0 {
		return api.ErrEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[r.sortOrder]; !ok {
		return api.ErrInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[r.sortTarget]; !ok {
		return api.ErrInvalidSortOption
	}
	return nil
}

var (
	errStreamSorted   = status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	errStreamFiltered = status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
)

func checkRangeStream(r *rangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if !r.inKeyOrder() {
		return errStreamSorted
	}
	if r.filtered() {
		return errStreamFiltered
	}
	return nil
}

func checkPut(r *putRequest) error {
	switch {
	case len(r.key) == 0:
		return api.ErrEmptyKey
	case r.ignoreValue && len(r.value) != 0:
		return api.ErrValueProvided
	case r.ignoreLease && r.lease != 0:
		return api.ErrLeaseProvided
	}
	return nil
}

func checkDelete(r *deleteRequest) error {
	if len(r.key) == 0 {
		return api.ErrEmptyKey
	}
	return nil
}

// checkTxn checks a transaction and what is nested in it. A nested one may have
// as many operations as its parent left of maxOps; so maxOps bounds the depth.
func checkTxn(r *txnRequest, maxOps int) error {
	used := max(len(r.compares), len(r.success), len(r.failure))
	if used > maxOps {
		return api.ErrTooManyOps
	}
	for i := range r.compares {
		if len(r.compares[i].key) == 0 {
			return api.ErrEmptyKey
		}
	}
	if err := checkOps(r.success, maxOps-used); err != nil {
		return err
	}
	return checkOps(r.failure, maxOps-used)
}

func checkOps(ops []op, maxOps int) error {
	for i := range ops {
		var err error
		switch o := &ops[i]; {
		case o.rng != nil:
			err = checkRange(o.rng)
		case o.put != nil:
			err = checkPut(o.put)
		case o.del != nil:
			err = checkDelete(o.del)
		case o.txn != nil:
			err = checkTxn(o.txn, maxOps)
		default:
			err = api.ErrKeyNotFound // an empty operation
		}
		if err != nil {
			return err
		}
	}
	return nil
}
