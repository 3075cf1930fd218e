package membership

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// step is one thing that happens to a cluster, and what is seen of it.
type step struct {
	what string
	do   func(ctx context.Context, w *world) string
}

// at runs etcdctl against a member.
func at(member, args string) step {
	return step{member + ": etcdctl " + args, func(ctx context.Context, w *world) string { return w.etcdctl(ctx, member, args) }}
}

// rpc sends what etcdctl would not.
func rpc(member, what string, call func(context.Context, pb.ClusterClient) error) step {
	return step{member + ": " + what, func(ctx context.Context, w *world) string { return w.rpc(ctx, member, call) }}
}

func starts(name string) step {
	return step{"start " + name, func(ctx context.Context, w *world) string {
		if err := w.start(ctx, name); err != nil {
			return err.Error()
		}
		return "started"
	}}
}

func ends(name string) step {
	return step{"end of " + name, func(ctx context.Context, w *world) string { return w.ended(ctx, name) }}
}

func kills(name string) step {
	return step{"kill " + name, func(_ context.Context, w *world) string { w.placed[name].Kill(); return "killed" }}
}

// waits lets connections become old enough to count, or a lost one be missed.
func waits(d time.Duration) step {
	return step{"wait", func(ctx context.Context, _ *world) string {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return ""
	}}
}

// oldEnough is a little more than the time for which etcd wants connections to last.
const oldEnough = 7 * time.Second

func script() []step {
	var out []step
	out = append(out, waits(oldEnough))
	out = append(out, refusedSteps()...)
	out = append(out, learnerSteps()...)
	out = append(out, voterSteps()...)
	out = append(out, lossSteps()...)
	return out
}

// placed are the members that the script adds.
var placed = []string{"l1", "l2", "v1", "v2", "v3"}

func refusedSteps() []step {
	steps := []step{
		at("m1", "member list"), at("m1", "member list -w json"), at("m1", "member list -w fields"), at("m1", "member list -w table"), at("m1", "member list --hex -w json"),
		at("m1", "member add"), at("m1", "member add x"), at("m1", "member add x --peer-urls=127.0.0.1:1"), at("m1", "member add x --peer-urls=http://127.0.0.1"),
		at("m1", "member add x --peer-urls=http://127.0.0.1:1/path"), at("m1", "member add x --peer-urls=ftp://127.0.0.1:1"),
		at("m1", "member add x --peer-urls={m1.peer}"), at("m2", "member add x --learner --peer-urls={m3.peer}"),
		at("m1", "member add x --peer-urls={l1.peer},{m2.peer}"),
		at("m1", "member remove"), at("m1", "member remove xyz"), at("m1", "member remove 1234"), at("m1", "member remove 0"),
		at("m1", "member update {m2}"), at("m1", "member update 1234 --peer-urls={l1.peer}"), at("m1", "member update {m2} --peer-urls={m1.peer}"),
		at("m1", "member update {m2} --peer-urls={m2.peer}"), at("m1", "member update {m2} --peer-urls={m2.peer} -w json"),
		at("m1", "member promote"), at("m1", "member promote xyz"),
	}
	for _, m := range []string{"m1", "m2", "m3"} { // one of them leads
		steps = append(steps, at(m, "member promote 1234"), at(m, "member promote {m1}"))
	}
	return append(steps,
		rpc("m1", "add nothing", func(ctx context.Context, c pb.ClusterClient) error {
			_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{})
			return err
		}),
		rpc("m1", "add an empty URL", func(ctx context.Context, c pb.ClusterClient) error {
			_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{""}, IsLearner: true})
			return err
		}),
		rpc("m1", "remove 0", func(ctx context.Context, c pb.ClusterClient) error {
			_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{})
			return err
		}),
		rpc("m2", "update 0", func(ctx context.Context, c pb.ClusterClient) error {
			_, err := c.MemberUpdate(ctx, &pb.MemberUpdateRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
			return err
		}),
		rpc("m3", "promote 0", func(ctx context.Context, c pb.ClusterClient) error {
			_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{})
			return err
		}),
	)
}

func learnerSteps() []step {
	return []step{
		at("m1", "put k v"),
		at("m1", "member add l1 --learner --peer-urls={l1.peer}"), at("m2", "member list"),
		at("m1", "member add l2 --learner --peer-urls={l2.peer}"),
		at("m1", "member promote {l1}"), at("m2", "member promote {l1}"), at("m3", "member promote {l1}"),
		starts("l1"), at("m1", "member list"), at("m1", "member list -w table"),
		at("l1", "get k --consistency=s"), at("l1", "get k"), at("l1", "put k w"), at("l1", "del k"), at("l1", "lease grant 10"), at("l1", "lease list"),
		at("l1", "member list"), at("l1", "member add x --peer-urls={l2.peer}"), at("l1", "member remove {l1}"), at("l1", "member promote {l1}"),
		at("l1", "watch k"), at("l1", "compaction 2"), at("l1", "move-leader {l1}"), at("l1", "endpoint health"), at("l1", "defrag"),
		at("m2", "member promote {l1}"), at("m1", "member list"), at("m1", "member promote {l1}"), at("l1", "get k"),
		at("m1", "member remove {l1}"), ends("l1"), at("m1", "member list"), at("m1", "member remove {l1}"), at("m1", "member promote {l1}"),
		at("m2", "member update {l1} --peer-urls={l2.peer}"),
	}
}

func voterSteps() []step {
	return []step{
		waits(oldEnough),
		at("m1", "member add v1 --peer-urls={v1.peer} -w json"), at("m1", "member list"),
		at("m1", "member add v2 --peer-urls={v2.peer}"), // four voters, three started: one more could be lost
		at("m1", "member add v3 --peer-urls={v3.peer}"),
		at("m1", "member remove {m3}"),
		at("m1", "member promote {v1}"),
		at("m1", "member remove {v1}"), at("m1", "member remove {v2}"), at("m1", "member remove {v3}"), at("m1", "member list"),
	}
}

func lossSteps() []step {
	return []step{
		kills("m3"), waits(2 * time.Second),
		at("m1", "member add v3 --peer-urls={v3.peer}"), at("m1", "member add v3 --learner --peer-urls={v3.peer}"),
		at("m1", "member remove {m2}"), at("m2", "member remove {m1}"), at("m2", "member remove {m2}"),
		at("m1", "member remove {m3}"), at("m1", "member list"),
		at("m1", "member remove {m2}"), ends("m2"), at("m1", "member list"),
		at("m1", "member remove {m1}"), at("m1", "get k"),
	}
}

// difference is a step after which the two saw something else.
type difference struct{ what, left, right string }

func (d difference) String() string {
	return fmt.Sprintf("%s\n--- left\n%s\n--- right\n%s", d.what, d.left, d.right)
}

// compare plays the script on both.
func compare(ctx context.Context, worlds [2]*world) (diffs []difference) {
	for _, s := range script() {
		var seen [2]string
		var wait sync.WaitGroup
		for i, w := range worlds {
			wait.Go(func() { seen[i] = s.do(ctx, w) })
		}
		wait.Wait()
		if seen[0] != seen[1] {
			diffs = append(diffs, difference{s.what, seen[0], seen[1]})
		}
	}
	return diffs
}
