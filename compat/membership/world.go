package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/compat/cluster"
)

// world is one store's cluster, and the names of what is in it.
type world struct {
	*cluster.Cluster
	ctl     string // path of etcdctl
	placed  map[string]*cluster.Member
	ids     map[string]uint64 // by member name
	initial []string          // name=url of the members, in the order of joining
}

func newWorld(ctx context.Context, c *cluster.Cluster) (*world, error) {
	ctl, err := cluster.BinaryPath("etcdctl")
	if err != nil {
		return nil, err
	}
	w := &world{Cluster: c, ctl: ctl, placed: map[string]*cluster.Member{}, ids: map[string]uint64{}}
	for _, m := range c.Members {
		s, err := m.Status(ctx)
		if err != nil {
			return nil, err
		}
		w.placed[m.Name], w.ids[m.Name] = m, s.Header.GetMemberId()
		w.initial = append(w.initial, m.Name+"="+m.PeerURL)
	}
	return w, nil
}

// place makes room for members that the script adds later.
func (w *world) place(names ...string) error {
	for _, n := range names {
		m, err := w.Place(n)
		if err != nil {
			return err
		}
		w.placed[n] = m
	}
	return nil
}

var reference = regexp.MustCompile(`\{(\w+)(?:\.(\w+))?\}`)

// expand replaces {m1} by the member's id, {m1.peer} and {m1.client} by its URLs.
func (w *world) expand(s string) string {
	return reference.ReplaceAllStringFunc(s, func(ref string) string {
		part := reference.FindStringSubmatch(ref)
		m := w.placed[part[1]]
		switch {
		case m == nil:
			return ref
		case part[2] == "peer":
			return m.PeerURL
		case part[2] == "client":
			return m.Endpoint
		}
		return strconv.FormatUint(w.ids[part[1]], 16)
	})
}

var (
	added   = regexp.MustCompile(`Member\s+([0-9a-f]+) added`)
	jsonNew = regexp.MustCompile(`"member":\{"ID":(\d+)`)
	noise   = []struct {
		re *regexp.Regexp
		to string
	}{
		{regexp.MustCompile(`(?m)^.*"retrying of unary invoker failed".*leader changed.*\n`), ""}, // an election, not the command
		{regexp.MustCompile(`"raft_term":\d+`), `"raft_term":N`},
		{regexp.MustCompile(`"RaftTerm" : \d+`), `"RaftTerm" : N`},
		{regexp.MustCompile(`"(cluster_id|member_id)":\d+`), `"$1":ID`},
		{regexp.MustCompile(`"(ClusterID|MemberID)" : \d+`), `"$1" : ID`},
		{regexp.MustCompile(`cluster\s+[0-9a-f]{12,16}`), "cluster ID"},
		{regexp.MustCompile(`"ts":"[^"]+"`), `"ts":"TIME"`},
		{regexp.MustCompile(`"endpoint":"[^"]+"`), `"endpoint":"E"`},
		{regexp.MustCompile(`"cluster_id":"[0-9a-f]+"`), `"cluster_id":ID`},
		{regexp.MustCompile(`"member_id":"[^"]+"`), `"member_id":ID`},
		{regexp.MustCompile(`0x[0-9a-f]{6,}`), "POINTER"},
		{regexp.MustCompile(`LocalAddr: '[^']+'`), "LocalAddr"},
		{regexp.MustCompile(`took(:| =)? ?[0-9.]+(ns|µs|ms|s)`), "took TIME"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+([+-]\d{4}|Z)`), "TIME"},
		{regexp.MustCompile(`[─┬┼┴├┤┌┐└┘]{2,}`), "──"},
		{regexp.MustCompile(` {2,}`), " "},
	}
)

// names replaces what differs between clusters by the members' names.
func (w *world) names(s string) string {
	var pairs []string
	for name, m := range w.placed {
		pairs = append(pairs, m.PeerURL, "PEER-"+name, m.Endpoint, "CLIENT-"+name)
		if id := w.ids[name]; id != 0 {
			pairs = append(pairs, strconv.FormatUint(id, 16), "ID-"+name, strconv.FormatUint(id, 10), "ID-"+name)
		}
	}
	s = strings.NewReplacer(pairs...).Replace(s)
	for _, n := range noise {
		s = n.re.ReplaceAllString(s, n.to)
	}
	// Lists come in the order of ids, which differs.
	lines := strings.Split(strings.NewReplacer("},{", "},\n{", "[{", "[\n{", "}]", "}\n]").Replace(s), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, ",")
		if urls, ok := strings.CutPrefix(l, `ETCD_INITIAL_CLUSTER="`); ok {
			list := strings.Split(strings.TrimSuffix(urls, `"`), ",")
			slices.Sort(list)
			lines[i] = `ETCD_INITIAL_CLUSTER="` + strings.Join(list, ",")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// etcdctl runs one command and returns what it printed, with names for ids.
func (w *world) etcdctl(ctx context.Context, at, args string) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	words := strings.Fields(w.expand(args))
	cmd := exec.CommandContext(ctx, w.ctl, append(words, "--endpoints", w.placed[at].Endpoint)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := out.String()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		text += fmt.Sprintf("(exit code %d)", exit.ExitCode())
	}
	w.learn(args, text)
	return w.names(text)
}

// learn notes the id of a member that was added.
func (w *world) learn(args, text string) {
	words := strings.Fields(args)
	if len(words) < 3 || words[0] != "member" || words[1] != "add" {
		return
	}
	if m := added.FindStringSubmatch(text); m != nil {
		w.ids[words[2]], _ = strconv.ParseUint(m[1], 16, 64)
	} else if m := jsonNew.FindStringSubmatch(text); m != nil {
		w.ids[words[2]], _ = strconv.ParseUint(m[1], 10, 64)
	}
}

// rpc sends a request of the Cluster service and prints how it was refused.
func (w *world) rpc(ctx context.Context, at string, call func(context.Context, pb.ClusterClient) error) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := w.placed[at].Dial()
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	s := status.Convert(call(ctx, pb.NewClusterClient(conn)))
	return fmt.Sprintf("%s: %s", s.Code(), w.names(s.Message()))
}

// start starts a member that was added, and waits until the others have its name.
func (w *world) start(ctx context.Context, name string) error {
	m := w.placed[name]
	list, err := w.members(ctx)
	if err != nil {
		return err
	}
	var initial []string
	for _, row := range list {
		if row.ID == w.ids[name] {
			row.Name = name
		}
		initial = append(initial, row.Name+"="+row.PeerURLs[0])
	}
	if err := w.Join(m, strings.Join(initial, ","), "existing"); err != nil {
		return err
	}
	return w.until(ctx, func() bool {
		list, err := w.members(ctx)
		return err == nil && slices.ContainsFunc(list, func(m *pb.Member) bool { return m.Name == name })
	})
}

func (w *world) members(ctx context.Context) ([]*pb.Member, error) {
	conn, err := w.placed["m1"].Dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	return resp.GetMembers(), err
}

func (w *world) until(ctx context.Context, cond func() bool) error {
	for !cond() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// ended reports whether a member's process ends by itself.
func (w *world) ended(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	select {
	case <-w.placed[name].Exited():
		return "ended"
	case <-ctx.Done():
		return "goes on"
	}
}
