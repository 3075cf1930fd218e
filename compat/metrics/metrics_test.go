package metrics

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson-io/keelson/compat/cluster"
)

var rewrite = flag.Bool("rewrite", false, "write the list of etcd's metrics anew")

const (
	listPath   = "../../server/testdata/etcd_metrics.txt"
	absentPath = "../../server/testdata/etcd_metrics_absent.txt"
)

// shape is what of a metric must be equal.
type shape struct{ kind, labels string }

// TestSameMetrics compares three members of each after the same traffic.
func TestSameMetrics(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	etcd := shapes(ctx, t, "etcd")
	if *rewrite {
		rewriteList(t, etcd)
	}
	listed := readList(t)
	for _, name := range slices.Sorted(maps.Keys(etcd)) {
		want, ok := listed[name]
		if !ok {
			t.Errorf("%s is a metric of etcd's and not in the list: run with -rewrite", name)
		} else if want.shape != etcd[name] {
			t.Errorf("%s: the list says %v, etcd shows %v", name, want.shape, etcd[name])
		}
	}
	store := os.Getenv("STORE")
	if store == "" {
		store = "kvd"
	}
	ours := shapes(ctx, t, store)
	absent := readAbsent(t)
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		want := listed[name]
		got, ok := ours[name]
		switch {
		case !ok && want.seen != "" && absent[name] == "":
			t.Errorf("%s (%s) is missing and no reason is given", name, want.kind)
		case ok && absent[name] != "" && store == "kvd":
			t.Errorf("%s stands among the absent ones and is here", name)
		case ok && got != want.shape:
			t.Errorf("%s: %v, etcd has %v", name, got, want.shape)
		}
	}
	for name := range absent {
		if _, ok := listed[name]; !ok {
			t.Errorf("%s stands among the absent ones and is no metric of etcd's", name)
		}
	}
}

// shapes starts three members, sends traffic and reads all their metrics.
func shapes(ctx context.Context, t *testing.T, name string) map[string]shape {
	t.Helper()
	sys, err := cluster.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(ctx, sys, cluster.Options{Members: 3, Dir: t.TempDir(), NoSync: true, Args: []string{"--metrics=extensive"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := traffic(ctx, c); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for {
		all := map[string]shape{}
		for _, m := range c.Members {
			for _, path := range []string{"/health", "/livez", "/readyz"} {
				if _, err := fetch(ctx, m.ClientURL()+path); err != nil {
					t.Fatal(err)
				}
			}
			if err := scrape(ctx, m.ClientURL(), all); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		// Round trips are measured every few seconds.
		if _, ok := all["etcd_network_peer_round_trip_time_seconds"]; ok {
			return all
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s shows no round trips between members", name)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// traffic asks each member for a bit of everything.
func traffic(ctx context.Context, c *cluster.Cluster) error {
	for _, m := range c.Members {
		cli, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		err = each(ctx, cli)
		cli.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func each(ctx context.Context, cli *clientv3.Client) error {
	endpoint := cli.Endpoints()[0]
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	events := cli.Watch(watched, "", clientv3.WithPrefix())
	lease, err := cli.Grant(ctx, 600)
	if err != nil {
		return err
	}
	var last *clientv3.PutResponse
	steps := []func() error{
		func() error { _, err := cli.KeepAliveOnce(ctx, lease.ID); return err },
		func() error { last, err = cli.Put(ctx, "a", "1", clientv3.WithLease(lease.ID)); return err },
		func() error { _, err := cli.Get(ctx, "a"); return err },
		func() error { _, err := cli.Get(ctx, "a", clientv3.WithRev(1<<40)); return wantError(err) },
		func() error { _, err := cli.Txn(ctx).Then(clientv3.OpGet("a")).Commit(); return err },
		func() error {
			_, err := cli.Txn(ctx).Then(clientv3.OpPut("b", "2"), clientv3.OpGet("b")).Commit()
			return err
		},
		func() error { _, err := cli.Delete(ctx, "b"); return err },
		func() error { _, err := cli.Revoke(ctx, lease.ID); return err },
		func() error {
			_, err := cli.Compact(ctx, last.Header.Revision, clientv3.WithCompactPhysical())
			return err
		},
		func() error { _, err := cli.Status(ctx, endpoint); return err },
		func() error { _, err := cli.HashKV(ctx, endpoint, 0); return err },
		func() error {
			_, err := pb.NewMaintenanceClient(cli.ActiveConnection()).Hash(ctx, &pb.HashRequest{})
			return err
		},
		func() error { _, err := cli.Defragment(ctx, endpoint); return err },
		func() error {
			snap, err := cli.Snapshot(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, snap)
			}
			return err
		},
		func() error { _, err := cli.AuthStatus(ctx); return err },
		func() error { _, err := cli.AlarmList(ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	select {
	case <-events:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func wantError(err error) error {
	if err == nil {
		return fmt.Errorf("an error was expected")
	}
	return nil
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// scrape adds what a member shows. Metrics of the Go runtime and of the process
// come from a library that both use.
func scrape(ctx context.Context, url string, into map[string]shape) error {
	text, err := fetch(ctx, url+"/metrics")
	if err != nil {
		return err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return err
	}
	for name, f := range families {
		if strings.HasPrefix(name, "go_") {
			continue
		}
		into[name] = shape{strings.ToLower(f.GetType().String()), labels(f)}
	}
	return nil
}

func labels(f *dto.MetricFamily) string {
	names := map[string]bool{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			names[l.GetName()] = true
		}
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ",")
}

// entry is a line of the list: name, type, labels, who asks for it, and whether
// traffic as here makes it appear.
type entry struct {
	shape
	by   string
	seen string
}

func readList(t *testing.T) map[string]entry {
	t.Helper()
	out := map[string]entry{}
	for _, f := range lines(t, listPath, 5) {
		e := entry{shape: shape{f[1], f[2]}, by: f[3]}
		if f[4] == "seen" {
			e.seen = f[4]
		}
		out[f[0]] = e
	}
	return out
}

func readAbsent(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range lines(t, absentPath, 2) {
		out[f[0]] = f[1]
	}
	return out
}

// lines splits the lines of a file into n fields; # begins a comment.
func lines(t *testing.T, path string, n int) (out [][]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := strings.SplitN(line, " ", n)
		if len(f) != n {
			t.Fatalf("%s: %q has no %d fields", path, line, n)
		}
		out = append(out, f)
	}
	return out
}

const listHead = `# etcd 3.7.3's metrics: name, type, labels, who asks for it, and whether ordinary traffic makes it appear.
# mixin: etcd's own alerts and dashboard (contrib/mixin). boards: dashboards of Kubernetes distributions.
# compat/metrics proves this list against etcd and kvd (go test ./metrics -rewrite adds what is new).
`

func rewriteList(t *testing.T, etcd map[string]shape) {
	t.Helper()
	listed := readList(t)
	for name, s := range etcd {
		e, ok := listed[name]
		if !ok {
			e.by = "-"
		}
		e.shape, e.seen = s, "seen"
		listed[name] = e
	}
	text := listHead
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		e := listed[name]
		if e.seen == "" {
			e.seen = "rare"
		}
		text += fmt.Sprintln(name, e.kind, e.labels, e.by, e.seen)
	}
	if err := os.WriteFile(listPath, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
