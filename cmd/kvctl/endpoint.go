package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (a *app) endpointCommand() *cobra.Command {
	var whole bool
	var rev int64
	over := func(run func(ctx context.Context, endpoints []string) error) func(context.Context, []string) error {
		return func(ctx context.Context, _ []string) error {
			endpoints, err := a.whole(ctx, whole)
			if err != nil {
				return err
			}
			return run(ctx, endpoints)
		}
	}
	hash := verb("hashkv", "Show the hash of each endpoint's history", "  kvctl endpoint hashkv --cluster", cobra.NoArgs,
		over(func(ctx context.Context, e []string) error { return a.hashes(ctx, e, rev) }))
	hash.Flags().Int64Var(&rev, "rev", 0, "hash up to this revision (0: the latest)")
	var again refreshing
	status := verb("status", "Show the state of each endpoint", "  kvctl endpoint status --cluster -o table", cobra.NoArgs,
		over(func(ctx context.Context, e []string) error {
			return a.refresh(ctx, &again, func(ctx context.Context) error { return a.statuses(ctx, e) })
		}))
	again.define(status)
	health := verb("health", "Ask each endpoint for a linearizable read; fails unless all answer",
		"  kvctl endpoint health --cluster", cobra.NoArgs, over(a.healths))
	c := family("endpoint", "State and health of members", status, health, hash)
	c.PersistentFlags().BoolVar(&whole, "cluster", false, "all members of the cluster, instead of --endpoints")
	return c
}

// whole returns the endpoints that a command is about: one for each member that
// has told its client URLs, if the whole cluster is meant.
func (a *app) whole(ctx context.Context, all bool) ([]string, error) {
	if !all {
		return a.endpoints, nil
	}
	list, err := a.members(ctx, false)
	if err != nil { // without a leader a member still knows what it knew
		var old error
		if list, old = a.members(ctx, true); old != nil {
			return nil, err
		}
		fmt.Fprintf(a.errs, "kvctl: %v; these are the members that one of them knows of\n", err)
	}
	var out []string
	for _, m := range list.Members {
		out = append(out, m.ClientURLs...)
	}
	return out, nil
}

// each does something with each endpoint at the same time, and returns the
// errors in the order of the endpoints.
func (a *app) each(ctx context.Context, endpoints []string, do func(ctx context.Context, i int, r *remote) error) []error {
	errs := make([]error, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		r, err := a.at(endpoint)
		if err != nil {
			errs[i] = err
			continue
		}
		wg.Go(func() {
			ctx, cancel := a.brief(ctx)
			defer cancel()
			errs[i] = do(ctx, i, r)
		})
	}
	wg.Wait()
	return errs
}

// endpointStatus is one line, in the JSON of etcdctl.
type endpointStatus struct {
	Endpoint string             `json:"Endpoint"`
	Status   *pb.StatusResponse `json:"Status"`
}

var statusHead = []string{
	"ENDPOINT", "ID", "VERSION", "STORAGE", "SIZE", "IN USE", "FREE", "QUOTA", "LEADER", "LEARNER",
	"TERM", "INDEX", "APPLIED", "ERRORS", "DOWNGRADE", "DOWNGRADING",
}

func (s endpointStatus) row() []string {
	r := s.Status
	free := int64(0)
	if r.DbSize > 0 {
		free = 100 - r.DbSizeInUse*100/r.DbSize
	}
	return []string{
		s.Endpoint, fmt.Sprintf("%x", r.Header.GetMemberId()), r.Version, r.StorageVersion,
		size(r.DbSize), size(r.DbSizeInUse), fmt.Sprintf("%d%%", free), size(r.DbSizeQuota),
		fmt.Sprint(r.Leader == r.Header.GetMemberId()), fmt.Sprint(r.IsLearner),
		fmt.Sprint(r.RaftTerm), fmt.Sprint(r.RaftIndex), fmt.Sprint(r.RaftAppliedIndex), strings.Join(r.Errors, ", "),
		r.DowngradeInfo.GetTargetVersion(), fmt.Sprint(r.DowngradeInfo.GetEnabled()),
	}
}

// gather asks all endpoints for their status; see answered.
func (a *app) gather(ctx context.Context, endpoints []string) ([]endpointStatus, error) {
	all := make([]endpointStatus, len(endpoints))
	return answered(a, "ask for the status", endpoints, all, a.each(ctx, endpoints, func(ctx context.Context, i int, r *remote) (err error) {
		all[i].Endpoint = r.endpoint
		all[i].Status, err = r.admin().Status(ctx, &pb.StatusRequest{})
		return err
	}))
}

// answered keeps what those endpoints said that have answered. Which have not is told on
// standard error, and fails the command in the end: an error does not mean an empty list.
func answered[T any](a *app, did string, endpoints []string, all []T, errs []error) (list []T, failed error) {
	for i, err := range errs {
		if err == nil {
			list = append(list, all[i])
			continue
		}
		if failed != nil {
			fmt.Fprintf(a.errs, "kvctl: %v\n", failed)
		}
		failed = classify(did, err, endpoints[i])
	}
	if failed == nil || len(list) == 0 {
		return list, failed
	}
	fmt.Fprintf(a.errs, "kvctl: %v\n", failed)
	return list, checkFailed(did, fmt.Errorf("%d of %d endpoints answer", len(list), len(endpoints)), "see above for each that does not")
}

func (a *app) statuses(ctx context.Context, endpoints []string) error {
	list, failed := a.gather(ctx, endpoints)
	r := result{value: list, head: statusHead}
	for _, s := range list {
		r.rows = append(r.rows, s.row())
	}
	return errors.Join(a.show(r), failed)
}

// endpointHealth is one line, in the JSON of etcdctl.
type endpointHealth struct {
	Endpoint string `json:"endpoint"`
	Health   bool   `json:"health"`
	Took     string `json:"took"`
	Error    string `json:"error,omitempty"`
}

func (a *app) healths(ctx context.Context, endpoints []string) error {
	list := make([]endpointHealth, len(endpoints))
	errs := a.each(ctx, endpoints, func(ctx context.Context, i int, r *remote) error {
		start := time.Now()
		err := healthy(ctx, r)
		list[i].Took = time.Since(start).String()
		return err
	})
	bad := 0
	r := result{value: list, head: []string{"ENDPOINT", "HEALTH", "TOOK", "ERROR"}}
	for i, err := range errs {
		h := &list[i]
		h.Endpoint, h.Health = endpoints[i], err == nil
		if err != nil {
			h.Error = text(err)
			bad++
		}
		r.rows = append(r.rows, []string{h.Endpoint, fmt.Sprint(h.Health), h.Took, h.Error})
	}
	r.simple = func(w io.Writer) {
		for _, h := range list {
			if h.Health {
				fmt.Fprintf(w, "%s is "+a.paint(green, "healthy")+": successfully committed proposal: took = %s\n", h.Endpoint, h.Took)
			} else {
				fmt.Fprintf(w, "%s is "+a.paint(red, "unhealthy")+": failed to commit proposal: %s\n", h.Endpoint, h.Error)
			}
		}
	}
	if err := a.show(r); err != nil {
		return err
	}
	if bad > 0 {
		return checkFailed("health", fmt.Errorf("%d of %d endpoints are unhealthy", bad, len(list)), "look at those members' logs; `kvctl endpoint status --cluster` shows alarms and who leads")
	}
	return nil
}

// answers asks for what needs the agreement of a majority. Being denied the key
// is an answer.
func answers(ctx context.Context, r *remote) error {
	_, err := r.kv().Range(ctx, &pb.RangeRequest{Key: []byte("health")})
	if status.Code(err) == codes.PermissionDenied {
		return nil
	}
	return err
}

// healthy also wants no alarm to be raised.
func healthy(ctx context.Context, r *remote) error {
	if err := answers(ctx, r); err != nil {
		return err
	}
	alarms, err := r.admin().Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil {
		if status.Code(err) == codes.PermissionDenied {
			return nil
		}
		return fmt.Errorf("unable to fetch the alarm list: %s", text(err))
	}
	if len(alarms.Alarms) == 0 {
		return nil
	}
	var names []string
	for _, m := range alarms.Alarms {
		names = append(names, fmt.Sprintf("%s on member %x", m.Alarm, m.MemberID))
	}
	return fmt.Errorf("active alarm(s): %s", strings.Join(names, ", "))
}

// endpointHash is one line, in the JSON of etcdctl.
type endpointHash struct {
	Endpoint string             `json:"Endpoint"`
	HashKV   *pb.HashKVResponse `json:"HashKV"`
}

func (a *app) hashes(ctx context.Context, endpoints []string, rev int64) error {
	all := make([]endpointHash, len(endpoints))
	list, failed := answered(a, "hash the history", endpoints, all, a.each(ctx, endpoints, func(ctx context.Context, i int, r *remote) (err error) {
		all[i].Endpoint = r.endpoint
		all[i].HashKV, err = r.admin().HashKV(ctx, &pb.HashKVRequest{Revision: rev})
		return err
	}))
	r := result{value: list, head: []string{"ENDPOINT", "HASH", "REVISION", "COMPACTED"}}
	for _, e := range list {
		h := e.HashKV
		r.rows = append(r.rows, []string{e.Endpoint, fmt.Sprint(h.Hash), fmt.Sprint(h.HashRevision), fmt.Sprint(h.CompactRevision)})
	}
	r.simple = func(w io.Writer) {
		for _, row := range r.rows {
			fmt.Fprintln(w, strings.Join(row[:3], ", "))
		}
	}
	return errors.Join(a.show(r), failed)
}
