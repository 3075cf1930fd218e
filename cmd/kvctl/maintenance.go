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

	"github.com/keelson-io/keelson/api"
)

func (a *app) compactCommand() *cobra.Command {
	var physical bool
	c := verb("compact REVISION", "Give up the history before a revision", "  kvctl compact 1000 --physical", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error {
			rev, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return usage("compact: %q is no revision", args[0])
			}
			err = a.call(ctx, "compact at "+args[0], func(ctx context.Context, r *remote) error {
				_, err := r.kv().Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: physical})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(result{value: map[string]int64{"compacted": rev}, simple: func(w io.Writer) { fmt.Fprintln(w, "compacted revision", rev) }})
		})
	c.Aliases = []string{"compaction"}
	c.Flags().BoolVar(&physical, "physical", false, "return when the old records are deleted from the file, too")
	return c
}

func (a *app) alarmCommand() *cobra.Command {
	return family("alarm", "Alarms: a full or a damaged member",
		verb("list", "Show the alarms", "  kvctl alarm list -o table", cobra.NoArgs,
			func(ctx context.Context, _ []string) error { return a.alarms(ctx, "list the alarms", false) }),
		verb("disarm", "Clear the alarms", "  kvctl alarm disarm", cobra.NoArgs,
			func(ctx context.Context, _ []string) error { return a.alarms(ctx, "disarm the alarms", true) }))
}

// alarms shows the alarms that are raised, or those that it has cleared.
func (a *app) alarms(ctx context.Context, did string, disarm bool) error {
	var resp *pb.AlarmResponse
	err := a.call(ctx, did, func(ctx context.Context, r *remote) (err error) {
		resp, err = r.admin().Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		if err != nil || !disarm {
			return err
		}
		raised := resp.Alarms
		resp = &pb.AlarmResponse{} // as etcdctl: what several requests ended has no header
		for _, one := range raised {
			ended, err := r.Maintenance().Disarm(ctx, one)
			if err != nil {
				return err
			}
			resp.Alarms = append(resp.Alarms, ended...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	list := resp.Alarms
	r := result{value: resp, head: []string{"MEMBER", "ALARM"}}
	for _, m := range list {
		r.rows = append(r.rows, []string{fmt.Sprintf("%x", m.MemberID), m.Alarm.String()})
	}
	r.simple = func(w io.Writer) {
		for _, m := range list {
			fmt.Fprintf(w, "memberID:%d alarm:%s\n", m.MemberID, m.Alarm)
		}
	}
	return a.show(r)
}

// moveLeaderTries is how often leadership is passed on, by whoever has it then.
const moveLeaderTries = 3

func (a *app) moveLeaderCommand() *cobra.Command {
	return verb("move-leader ID", "Make another member lead", "  kvctl move-leader 8e9e05c52164694d", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error {
			id, err := parseMember(args[0])
			if err != nil {
				return err
			}
			leader, err := a.moveLeader(ctx, id)
			if err != nil {
				return err
			}
			return a.show(result{value: map[string]string{"from": fmt.Sprintf("%x", leader.Status.Leader), "to": args[0]}, simple: func(w io.Writer) {
				fmt.Fprintf(w, "Leadership transferred from %x to %x\n", leader.Status.Leader, id)
			}})
		})
}

// moveLeader asks whoever leads to pass leadership on, and returns who did. When another member
// was elected meanwhile, that one is asked.
func (a *app) moveLeader(ctx context.Context, to uint64) (leader endpointStatus, err error) {
	for try := 1; ; try++ {
		list, err := a.leaderFirst(ctx, a.endpoints)
		if err != nil {
			return leader, err
		}
		lost := false
		leader = list[0]
		err = a.on(ctx, []string{leader.Endpoint}, "move the leadership", func(ctx context.Context, r *remote) error {
			_, err := r.admin().MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
			lost = errors.Is(err, api.ErrTimeoutLeaderTransfer) && ctx.Err() == nil
			return err
		})
		if !lost || try == moveLeaderTries {
			return leader, err
		}
	}
}

// leaderFirst returns the states of all endpoints, the leader's first. It looks
// at the whole cluster when none of the endpoints leads.
func (a *app) leaderFirst(ctx context.Context, endpoints []string) ([]endpointStatus, error) {
	for _, whole := range []bool{false, true} {
		if whole {
			var err error
			if endpoints, err = a.whole(ctx, true); err != nil {
				return nil, err
			}
		}
		list, err := a.gather(ctx, endpoints)
		if len(list) == 0 {
			return nil, err
		}
		for i, s := range list {
			if s.Status.Leader != 0 && s.Status.Leader == s.Status.Header.GetMemberId() {
				list[0], list[i] = list[i], list[0]
				return list, nil
			}
		}
	}
	return nil, &failure{code: exitRefused, did: "find the leader", err: fmt.Errorf("none of %d endpoints leads", len(endpoints)), next: "try again when there is a leader"}
}

func (a *app) downgradeCommand() *cobra.Command {
	run := func(name, done string, action pb.DowngradeRequest_DowngradeAction) func(context.Context, []string) error {
		return func(ctx context.Context, args []string) error {
			r := &pb.DowngradeRequest{Action: action}
			if len(args) > 0 {
				r.Version = args[0]
			}
			var resp *pb.DowngradeResponse
			err := a.call(ctx, name+" a downgrade", func(ctx context.Context, to *remote) (err error) {
				resp, err = to.admin().Downgrade(ctx, r)
				return err
			})
			if err != nil {
				return err
			}
			return a.show(result{value: resp, simple: func(w io.Writer) { fmt.Fprintf(w, "Downgrade %s success, cluster version %s\n", done, resp.Version) }})
		}
	}
	return family("downgrade", "Prepare the cluster for an older version",
		verb("validate VERSION", "Ask whether a downgrade is possible", "  kvctl downgrade validate 3.6", cobra.ExactArgs(1), run("validate", "validate", pb.DowngradeRequest_VALIDATE)),
		verb("enable VERSION", "Begin a downgrade", "  kvctl downgrade enable 3.6", cobra.ExactArgs(1), run("enable", "enable", pb.DowngradeRequest_ENABLE)),
		verb("cancel", "Take a downgrade back", "  kvctl downgrade cancel", cobra.NoArgs, run("cancel", "cancel", pb.DowngradeRequest_CANCEL)))
}

func (a *app) defragCommand() *cobra.Command {
	var whole bool
	c := verb("defrag", "Give a member's free space back to the file system", "  kvctl defrag --cluster", cobra.NoArgs,
		func(ctx context.Context, _ []string) error { return a.defrag(ctx, whole) })
	c.Long = c.Short + `.

With --cluster all members, one after the other, followers first, and each only while the whole cluster is healthy.`
	c.Flags().BoolVar(&whole, "cluster", false, "all members of the cluster, instead of --endpoints")
	return c
}

func (a *app) defrag(ctx context.Context, whole bool) error {
	endpoints, err := a.whole(ctx, whole)
	if err != nil {
		return err
	}
	if whole {
		list, err := a.leaderFirst(ctx, endpoints)
		if err != nil {
			return err
		}
		if len(list) < len(endpoints) {
			return checkFailed("defrag --cluster", fmt.Errorf("only %d of %d members answer", len(list), len(endpoints)), "heal the cluster first, or name the members with --endpoints")
		}
		endpoints = nil
		for _, s := range append(list[1:], list[0]) {
			endpoints = append(endpoints, s.Endpoint)
		}
	}
	for i, endpoint := range endpoints {
		if whole {
			if err := a.awaitHealth(ctx, endpoints); err != nil {
				return err
			}
		}
		if err := a.defragOne(ctx, endpoint, fmt.Sprintf("%d of %d", i+1, len(endpoints))); err != nil {
			return err
		}
	}
	return nil
}

// How long a cluster may take to be healthy again between two members.
const (
	healthPatience = 30 * time.Second
	healthPause    = 200 * time.Millisecond
)

// awaitHealth waits until all endpoints answer, so that no second member is
// touched while a first one is not back.
func (a *app) awaitHealth(ctx context.Context, endpoints []string) error {
	for deadline := time.Now().Add(healthPatience); ; {
		var bad error
		for i, err := range a.each(ctx, endpoints, func(ctx context.Context, _ int, r *remote) error { return answers(ctx, r) }) {
			if err != nil {
				bad = checkFailed("defrag --cluster", fmt.Errorf("%s is unhealthy: %s", endpoints[i], text(err)), "heal the cluster first; members that were defragmented already stay so")
			}
		}
		if bad == nil || time.Now().After(deadline) {
			return bad
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(healthPause):
		}
	}
}

// defragOne has no time limit: a rewrite takes as long as the file is large.
func (a *app) defragOne(ctx context.Context, endpoint, which string) error {
	r, err := a.at(endpoint)
	if err != nil {
		return err
	}
	before, err := r.admin().Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return classify("defrag", err, endpoint)
	}
	bar := a.progress("")
	bar.note(fmt.Sprintf("defragmenting %s (%s), %s", endpoint, which, size(before.DbSize)))
	start := time.Now()
	_, err = r.admin().Defragment(ctx, &pb.DefragmentRequest{})
	bar.done()
	if err != nil {
		return classify("defrag", err, endpoint)
	}
	after, err := r.admin().Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return classify("defrag", err, endpoint)
	}
	fmt.Fprintf(a.out, "Finished defragmenting etcd member[%s]. took %v (%s, %s to %s)\n",
		endpoint, time.Since(start).Round(time.Millisecond), which, size(before.DbSize), size(after.DbSize))
	return nil
}

func (a *app) statusCommand() *cobra.Command {
	var again refreshing
	c := verb("status", "Show the cluster: leader, lag, space, alarms", "  kvctl status --watch", cobra.NoArgs,
		func(ctx context.Context, _ []string) error { return a.refresh(ctx, &again, a.overview) })
	again.define(c)
	return c
}

// overview is what an operator wants to see first.
func (a *app) overview(ctx context.Context) error {
	members, err := a.members(ctx, true)
	if err != nil {
		return err
	}
	type line struct {
		m  *pb.Member
		at string
	}
	var lines []line
	var endpoints []string
	for _, m := range members.Members {
		l := line{m: m}
		if len(m.ClientURLs) > 0 {
			l.at = m.ClientURLs[0]
			endpoints = append(endpoints, l.at)
		}
		lines = append(lines, l)
	}
	list, failed := a.gather(ctx, endpoints)
	states := map[string]*pb.StatusResponse{}
	var newest uint64
	for _, s := range list {
		states[s.Endpoint] = s.Status
		newest = max(newest, s.Status.RaftIndex)
	}
	r := result{head: []string{"NAME", "ENDPOINT", "ROLE", "LAG", "USED", "FREE", "QUOTA", "VERSION", "ALARMS"}}
	for _, l := range lines {
		r.rows = append(r.rows, a.overviewRow(l.m, l.at, states[l.at], newest))
	}
	r.value = map[string]any{"members": members.Members, "status": list}
	r.simple = func(w io.Writer) { table(w, r.head, r.rows) }
	return errors.Join(a.show(r), failed)
}

func (a *app) overviewRow(m *pb.Member, at string, s *pb.StatusResponse, newest uint64) []string {
	role := "follower"
	switch {
	case s == nil && m.Name == "":
		role = "unstarted"
	case s == nil:
		role = "no answer"
	case s.Leader == m.ID:
		role = "leader"
	case s.Leader == 0:
		role = "no leader"
	case s.IsLearner:
		role = "learner"
	}
	if s == nil {
		return []string{m.Name, at, role, "", "", "", "", "", ""}
	}
	alarms := strings.Join(s.Errors, ", ")
	if alarms != "" {
		alarms = a.paint(red, alarms) // the last column: colours do not shift others
	}
	return []string{
		m.Name, at, role, fmt.Sprint(newest - s.RaftAppliedIndex), size(s.DbSizeInUse), size(s.DbSize - s.DbSizeInUse),
		size(s.DbSizeQuota), s.Version, alarms,
	}
}
