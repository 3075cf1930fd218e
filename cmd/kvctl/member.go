package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (a *app) memberCommand() *cobra.Command {
	var peers, consistency string
	var learner bool
	list := verb("list", "Show the members", "  kvctl member list -o table", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			stale, err := serializable(consistency)
			if err != nil {
				return err
			}
			return a.memberList(ctx, stale)
		})
	list.Flags().StringVar(&consistency, "consistency", "l", "l (linearizable) or s (what this member knows, perhaps old)")
	add := verb("add NAME --peer-urls URL", "Add a member; prints what its kvd has to be started with",
		"  kvctl member add m4 --peer-urls http://10.0.0.4:2380 --learner", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.memberAdd(ctx, args[0], peers, learner) })
	add.Flags().BoolVar(&learner, "learner", false, "without a vote, until it is promoted")
	update := verb("update ID --peer-urls URL", "Change where a member is found by the others",
		"  kvctl member update 8e9e05c52164694d --peer-urls http://10.0.0.9:2380", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.memberUpdate(ctx, args[0], peers) })
	for _, c := range []*cobra.Command{add, update} {
		c.Flags().StringVar(&peers, "peer-urls", "", "the member's peer `URLs`, separated by commas")
	}
	remove := verb("remove ID", "Remove a member for ever", "  kvctl member remove 8e9e05c52164694d", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.memberRemove(ctx, args[0]) })
	promote := verb("promote ID", "Make a voter of a learner", "  kvctl member promote 8e9e05c52164694d", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.memberPromote(ctx, args[0]) })
	return family("member", "Change and show the members", list, add, update, remove, promote)
}

func parseMember(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, usage("%q is no member id (hexadecimal, see `kvctl member list`)", s)
	}
	return id, nil
}

// members asks for the membership.
func (a *app) members(ctx context.Context, stale bool) (resp *pb.MemberListResponse, err error) {
	err = a.call(ctx, "list the members", func(ctx context.Context, r *remote) (err error) {
		resp, err = r.cluster().MemberList(ctx, &pb.MemberListRequest{Linearizable: !stale})
		return err
	})
	return resp, err
}

func (a *app) memberList(ctx context.Context, stale bool) error {
	resp, err := a.members(ctx, stale)
	if err != nil {
		return err
	}
	r := result{value: resp, head: []string{"ID", "STATUS", "NAME", "PEER URLS", "CLIENT URLS", "LEARNER"}}
	for _, m := range resp.Members {
		state := "started"
		if m.Name == "" {
			state = "unstarted"
		}
		r.rows = append(r.rows, []string{
			fmt.Sprintf("%x", m.ID), state, m.Name, strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","), fmt.Sprint(m.IsLearner),
		})
	}
	return a.show(r)
}

func (a *app) memberAdd(ctx context.Context, name, peers string, learner bool) error {
	if peers == "" {
		return usage("member add: --peer-urls is missing")
	}
	var resp *pb.MemberAddResponse
	err := a.call(ctx, "add member "+name, func(ctx context.Context, r *remote) (err error) {
		resp, err = r.cluster().MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: strings.Split(peers, ","), IsLearner: learner})
		return err
	})
	if err != nil {
		return err
	}
	return a.show(result{value: resp, simple: func(w io.Writer) {
		as := " "
		if learner {
			as = " as learner "
		}
		fmt.Fprintf(w, "Member %16x added%sto cluster %16x\n\n", resp.Member.ID, as, resp.Header.GetClusterId())
		fmt.Fprintf(w, "ETCD_NAME=%q\nETCD_INITIAL_CLUSTER=%q\n", name, initialCluster(resp, name))
		fmt.Fprintf(w, "ETCD_INITIAL_ADVERTISE_PEER_URLS=%q\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n", peers)
	}})
}

// initialCluster is what the new member has to be started with.
func initialCluster(resp *pb.MemberAddResponse, name string) string {
	var parts []string
	for _, m := range resp.Members {
		called := m.Name
		if m.ID == resp.Member.ID {
			called = name
		}
		for _, u := range m.PeerURLs {
			parts = append(parts, called+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// memberChange changes one member and says so in one line.
func (a *app) memberChange(ctx context.Context, id, did, done string, change func(ctx context.Context, c pb.ClusterClient, id uint64) (any, *pb.ResponseHeader, error)) error {
	member, err := parseMember(id)
	if err != nil {
		return err
	}
	var resp any
	var header *pb.ResponseHeader
	err = a.call(ctx, did+" member "+id, func(ctx context.Context, r *remote) (err error) {
		resp, header, err = change(ctx, r.cluster(), member)
		return err
	})
	if err != nil {
		return err
	}
	return a.show(result{value: resp, simple: func(w io.Writer) {
		fmt.Fprintf(w, "Member %16x %s cluster %16x\n", member, done, header.GetClusterId())
	}})
}

func (a *app) memberRemove(ctx context.Context, id string) error {
	return a.memberChange(ctx, id, "remove", "removed from", func(ctx context.Context, c pb.ClusterClient, id uint64) (any, *pb.ResponseHeader, error) {
		resp, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
		return resp, resp.GetHeader(), err
	})
}

func (a *app) memberPromote(ctx context.Context, id string) error {
	return a.memberChange(ctx, id, "promote", "promoted in", func(ctx context.Context, c pb.ClusterClient, id uint64) (any, *pb.ResponseHeader, error) {
		resp, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		return resp, resp.GetHeader(), err
	})
}

func (a *app) memberUpdate(ctx context.Context, id, peers string) error {
	if peers == "" {
		return usage("member update: --peer-urls is missing")
	}
	return a.memberChange(ctx, id, "update", "updated in", func(ctx context.Context, c pb.ClusterClient, id uint64) (any, *pb.ResponseHeader, error) {
		resp, err := c.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: strings.Split(peers, ",")})
		return resp, resp.GetHeader(), err
	})
}
