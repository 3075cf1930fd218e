package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/client"
)

func (a *app) leaseCommand() *cobra.Command {
	var keys, once bool
	grant := verb("grant SECONDS", "Make a lease", "  kvctl lease grant 60", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.leaseGrant(ctx, args[0]) })
	revoke := verb("revoke ID", "End a lease and delete its keys", "  kvctl lease revoke 694d81417acd4a07", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.leaseRevoke(ctx, args[0]) })
	ttl := verb("timetolive ID", "Show how long a lease still lives", "  kvctl lease timetolive 694d81417acd4a07 --keys", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.leaseTTL(ctx, args[0], keys) })
	ttl.Flags().BoolVar(&keys, "keys", false, "and its keys")
	list := verb("list", "Show all leases", "  kvctl lease list", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.leaseList(ctx) })
	alive := verb("keep-alive ID", "Renew a lease until interrupted", "  kvctl lease keep-alive 694d81417acd4a07 --once", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.keepAlive(ctx, args[0], once) })
	alive.Flags().BoolVar(&once, "once", false, "renew it once")
	return family("lease", "Leases: keys that go when their owner does", grant, revoke, ttl, list, alive)
}

// What is known of leases, in etcdctl's JSON.
type (
	leaseGranted struct {
		*pb.ResponseHeader
		ID, TTL int64
		Error   string
	}
	leaseState struct {
		*pb.ResponseHeader
		ID         int64    `json:"id"`
		TTL        int64    `json:"ttl"`
		GrantedTTL int64    `json:"granted-ttl"`
		Keys       [][]byte `json:"keys"`
	}
	leaseIDs struct {
		*pb.ResponseHeader
		Leases []leaseID `json:"leases"`
	}
	leaseID struct {
		ID int64 `json:"id"`
	}
)

func (a *app) leaseGrant(ctx context.Context, seconds string) error {
	ttl, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return usage("lease grant: %q is no number of seconds", seconds)
	}
	var resp *pb.LeaseGrantResponse
	err = a.call(ctx, "grant a lease", func(ctx context.Context, r *remote) (err error) {
		resp, err = r.lease().LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl})
		return err
	})
	if err != nil {
		return err
	}
	value := leaseGranted{resp.Header, resp.ID, resp.TTL, resp.Error}
	return a.show(result{value: value, simple: func(w io.Writer) { fmt.Fprintf(w, "lease %016x granted with TTL(%ds)\n", resp.ID, resp.TTL) }})
}

func (a *app) leaseRevoke(ctx context.Context, arg string) error {
	id, err := parseLease(arg)
	if err != nil {
		return err
	}
	var resp *pb.LeaseRevokeResponse
	err = a.call(ctx, "revoke lease "+arg, func(ctx context.Context, r *remote) (err error) {
		resp, err = r.lease().LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		return err
	})
	if err != nil {
		return err
	}
	return a.show(result{value: resp, simple: func(w io.Writer) { fmt.Fprintf(w, "lease %016x revoked\n", id) }})
}

func (a *app) leaseTTL(ctx context.Context, arg string, keys bool) error {
	id, err := parseLease(arg)
	if err != nil {
		return err
	}
	var resp *pb.LeaseTimeToLiveResponse
	err = a.call(ctx, "look at lease "+arg, func(ctx context.Context, r *remote) (err error) {
		resp, err = r.lease().LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
		return err
	})
	if err != nil {
		return err
	}
	value := leaseState{resp.Header, resp.ID, resp.TTL, resp.GrantedTTL, resp.Keys}
	return a.show(result{value: value, simple: func(w io.Writer) {
		if resp.GrantedTTL == 0 && resp.TTL == -1 {
			fmt.Fprintf(w, "lease %016x already expired\n", resp.ID)
			return
		}
		fmt.Fprintf(w, "lease %016x granted with TTL(%ds), remaining(%ds)", resp.ID, resp.GrantedTTL, resp.TTL)
		if keys {
			names := make([]string, len(resp.Keys))
			for i, k := range resp.Keys {
				names[i] = a.bytesText(k)
			}
			fmt.Fprintf(w, ", attached keys([%s])", strings.Join(names, " "))
		}
		fmt.Fprintln(w)
	}})
}

func (a *app) leaseList(ctx context.Context) error {
	var resp *pb.LeaseLeasesResponse
	err := a.call(ctx, "list the leases", func(ctx context.Context, r *remote) (err error) {
		resp, err = r.lease().LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		return err
	})
	if err != nil {
		return err
	}
	value := leaseIDs{ResponseHeader: resp.Header}
	for _, l := range resp.Leases {
		value.Leases = append(value.Leases, leaseID{l.ID})
	}
	return a.show(result{value: value, simple: func(w io.Writer) {
		fmt.Fprintf(w, "found %d leases\n", len(resp.Leases))
		for _, l := range resp.Leases {
			fmt.Fprintf(w, "%016x\n", l.ID)
		}
	}})
}

// keepAlive renews a lease: once, or until ctx ends or the lease is lost. While
// the lease may still live, a renewal that fails is tried again.
func (a *app) keepAlive(ctx context.Context, arg string, once bool) error {
	id, err := parseLease(arg)
	if err != nil {
		return err
	}
	did := "renew lease " + arg
	var ttl time.Duration
	renew := func(ctx context.Context, r *remote) (err error) {
		ttl, err = r.Renew(ctx, client.LeaseID(id))
		return leaseLost(did, err)
	}
	if err := a.call(ctx, did, renew); err != nil {
		return err
	}
	r, err := a.patient()
	if err != nil {
		return err
	}
	for {
		seconds := int64(ttl / time.Second)
		err := a.show(result{value: map[string]int64{"ID": id, "TTL": seconds}, simple: func(w io.Writer) {
			fmt.Fprintf(w, "lease %016x keepalived with TTL(%d)\n", id, seconds)
		}})
		if err != nil || once {
			return err
		}
		sent := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(ttl / 3):
		}
		last, cancel := context.WithDeadline(ctx, sent.Add(ttl))
		err = renew(last, r)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return classify(did, err, a.endpoints...)
		}
	}
}

// leaseLost says what a lost lease means.
func leaseLost(did string, err error) error {
	if !errors.Is(err, client.ErrLeaseLost) {
		return err
	}
	return checkFailed(did, errors.New("the lease expired or was revoked"), "`kvctl lease list` shows the leases")
}
