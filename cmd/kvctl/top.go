package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/server"
)

// What kvctl top can list.
var topKinds = map[string]func(*server.TopReport) []server.TopEntry{
	"prefixes": func(r *server.TopReport) []server.TopEntry { return r.Prefixes },
	"keys":     func(r *server.TopReport) []server.TopEntry { return r.Keys },
	"clients":  func(r *server.TopReport) []server.TopEntry { return r.Clients },
}

func (a *app) topCommand() *cobra.Command {
	var whole bool
	var n int
	var again refreshing
	c := verb("top [prefixes|keys|clients]", "Show what the endpoints are asked about the most, over the last minutes",
		"  kvctl top --cluster -o table --watch\n  kvctl top clients", cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			kind := "prefixes"
			if len(args) > 0 {
				kind = args[0]
			}
			if topKinds[kind] == nil || n < 1 {
				return usage("top lists prefixes, keys or clients, one at least")
			}
			endpoints, err := a.whole(ctx, whole)
			if err != nil {
				return err
			}
			return a.refresh(ctx, &again, func(ctx context.Context) error { return a.top(ctx, endpoints, kind, n) })
		})
	again.define(c)
	c.Flags().BoolVar(&whole, "cluster", false, "all members of the cluster, instead of --endpoints")
	c.Flags().IntVarP(&n, "number", "n", 10, "how `many` to show")
	return c
}

var topHead = []string{"NAME", "REQ/S", "READS/S", "WRITES/S", "WATCHES/S", "BYTES/S", "SHARE"}

// top adds the endpoints' reports up: each member sees its own clients only.
func (a *app) top(ctx context.Context, endpoints []string, kind string, n int) error {
	all := make([]server.TopReport, len(endpoints))
	reports, failed := answered(a, "ask what is hot", endpoints, all, a.each(ctx, endpoints, func(ctx context.Context, i int, r *remote) error {
		return a.fetchTop(ctx, r, &all[i])
	}))
	sum := map[string]*topRow{}
	total := 0.0
	for i := range reports {
		r := &reports[i]
		for _, e := range topKinds[kind](r) {
			row := sum[e.Name]
			if row == nil {
				row = &topRow{name: e.Name}
				sum[e.Name] = row
			}
			row.add(e, r.Seconds)
			total += float64(e.Count) / r.Seconds
		}
	}
	var rows []*topRow
	for _, row := range sum {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y *topRow) int { return cmp.Or(cmp.Compare(y.all, x.all), cmp.Compare(x.name, y.name)) })
	r := result{value: reports, head: topHead}
	for _, row := range rows[:min(n, len(rows))] {
		r.rows = append(r.rows, row.cells(total))
	}
	return errors.Join(a.show(r), failed)
}

// topRow is what several members together are asked about one thing, a second.
type topRow struct {
	name                                string
	all, reads, writes, watches, volume float64
}

func (t *topRow) add(e server.TopEntry, seconds float64) {
	t.all += float64(e.Count) / seconds
	t.reads += float64(e.Reads) / seconds
	t.writes += float64(e.Writes) / seconds
	t.watches += float64(e.Watches) / seconds
	t.volume += float64(e.Bytes) / seconds
}

func (t *topRow) cells(total float64) []string {
	rate := func(f float64) string { return fmt.Sprintf("%.1f", f) }
	return []string{
		t.name, rate(t.all), rate(t.reads), rate(t.writes), rate(t.watches), size(int64(t.volume)),
		fmt.Sprintf("%.0f%%", 100*t.all/total),
	}
}

// login is a token for what does not go through the client.
func (a *app) login(ctx context.Context, r *remote) (string, error) {
	if a.user == "" {
		return a.token, nil
	}
	resp, err := r.auth().Authenticate(ctx, &pb.AuthenticateRequest{Name: a.user, Password: a.password})
	if errors.Is(err, api.ErrAuthNotEnabled) {
		return "", nil
	}
	return resp.GetToken(), err
}

// maxTopAnswer bounds what an endpoint may answer.
const maxTopAnswer = 16 << 20

// fetchTop asks one endpoint, over HTTP at its client address, as the user that
// the connection logged in as.
func (a *app) fetchTop(ctx context.Context, r *remote, into *server.TopReport) error {
	tls, err := a.tlsConfig()
	if err != nil {
		return err
	}
	scheme, address, found := strings.Cut(r.endpoint, "://")
	if !found {
		scheme, address = "http", r.endpoint
		if tls != nil {
			scheme = "https"
		}
	}
	network := "tcp"
	if path, ok := strings.CutPrefix(scheme, "unix"); ok {
		scheme, network = "http"+path, "unix"
	}
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: tls, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: a.dialTimeout}).DialContext(ctx, network, address)
		},
	}}
	host := address
	if network == "unix" {
		host = "localhost"
	}
	// As many as there may be: what is hot on all members together need not lead on any.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+server.TopPath+fmt.Sprintf("?n=%d", server.MaxTop), nil)
	if err != nil {
		return err
	}
	token, err := a.login(ctx, r)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTopAnswer))
	switch {
	case err != nil:
		return status.Error(codes.Unavailable, err.Error())
	case resp.StatusCode == http.StatusOK:
		return json.Unmarshal(body, into)
	case resp.StatusCode == http.StatusNotFound:
		return status.Error(codes.Unimplemented, "this member does not know: it is etcd's, or its HTTP is at another address (--listen-client-http-urls)")
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return status.Error(codes.PermissionDenied, strings.TrimSpace(string(body)))
	}
	return status.Error(codes.Unknown, strings.TrimSpace(string(body)))
}
