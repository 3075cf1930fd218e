package server

import (
	"encoding/json"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]string{
		"3.6": "3.6.0", "3.6.9": "3.6.0", "3.6.0-rc.1": "3.6.0", "3.7.3+git": "3.7.0",
		"": "", "3": "", "x.6": "", "3.6.1.2": "", "3.6.x": "", "v3.6.0": "", "3.6.0-rc_1": "",
	} {
		v, ok := parseRelease(text)
		if got := v.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s, %v, want %q", text, got, ok, want)
		}
	}
}

func TestDecideVersion(t *testing.T) {
	v36, v37, v38 := release{3, 6}, release{3, 7}, release{3, 8}
	down := downgradeRow{Target: "3.6.0", Enabled: true}
	for what, c := range map[string]struct {
		now      versionSet
		versions []release
		all      bool
		want     *release
	}{
		"a new cluster":             {versionSet{cluster: v37}, nil, false, &v37},
		"as it is":                  {versionSet{known: true, cluster: v37}, []release{v37, v38}, true, nil},
		"everybody is newer":        {versionSet{known: true, cluster: v37}, []release{v38, v38}, true, &v38},
		"one is unknown":            {versionSet{known: true, cluster: v37}, []release{v38}, false, nil},
		"never down by itself":      {versionSet{known: true, cluster: v37}, []release{v36}, true, nil},
		"a downgrade":               {versionSet{known: true, cluster: v37, downgrade: down}, []release{v37}, true, &v36},
		"a downgrade that was done": {versionSet{known: true, cluster: v36, downgrade: down}, []release{v37}, true, nil},
		"too far down":              {versionSet{known: true, cluster: v38, downgrade: down}, []release{v38}, true, nil},
	} {
		got := decideVersion(&c.now, c.versions, c.all)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// TestDowngrade goes the way of etcdctl downgrade, and finds the state again
// after a restart.
func TestDowngrade(t *testing.T) {
	c := newTestCluster(1)
	m := c.start(t, "m0")
	ctx := callContext(t)
	waitFor(t, "the cluster version", func() bool { return m.view().versions().known })
	client := pb.NewMaintenanceClient(m.conn)
	ask := func(action pb.DowngradeRequest_DowngradeAction, version string) (string, error) {
		resp, err := client.Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: version})
		if err == nil && (resp.Header.MemberId != uint64(m.id) || resp.Header.Revision == 0) {
			t.Errorf("header %v", resp.Header)
		}
		return resp.GetVersion(), err
	}
	for _, step := range []struct {
		action  pb.DowngradeRequest_DowngradeAction
		version string
		want    *api.Error
	}{
		{pb.DowngradeRequest_VALIDATE, "abc", api.ErrWrongDowngradeVersionFormat},
		{pb.DowngradeRequest_VALIDATE, "3.5", api.ErrInvalidDowngradeTarget},
		{pb.DowngradeRequest_VALIDATE, "3.7.0", api.ErrInvalidDowngradeTarget},
		{pb.DowngradeRequest_VALIDATE, "3.6", nil},
		{pb.DowngradeRequest_CANCEL, "", nil}, // as etcd: nothing is said
		{9, "3.6", api.ErrUnknownMethod},
		{pb.DowngradeRequest_ENABLE, "3.6.2", nil},
	} {
		version, err := ask(step.action, step.version)
		refused(t, step.action.String()+" "+step.version, err, step.want)
		if step.want == nil && version != "3.7" {
			t.Errorf("%v %s: version %q", step.action, step.version, version)
		}
	}
	status, err := client.Status(ctx, &pb.StatusRequest{})
	if err != nil || !status.DowngradeInfo.Enabled || status.DowngradeInfo.TargetVersion != "3.6.0" {
		t.Errorf("status: %v, %v", status, err)
	}
	waitFor(t, "the cluster version to follow", func() bool { return m.view().versions().cluster == release{3, 6} })
	m.end(t)

	m = c.start(t, "m0")
	client = pb.NewMaintenanceClient(m.conn)
	if now := m.view().versions(); now.storage != "3.6.0" || !now.downgrade.Enabled {
		t.Errorf("after a restart: %+v", now)
	}
	if _, err := ask(pb.DowngradeRequest_VALIDATE, "3.5"); err == nil {
		t.Error("a second downgrade is allowed")
	}
	if _, err := ask(pb.DowngradeRequest_CANCEL, ""); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the version to rise again", func() bool { return m.view().versions().cluster == release{3, 7} })
	rows := map[string]string{}
	m.Store().Raw(engine.Cluster, func(k, v []byte) bool {
		rows[string(k)] = string(v)
		return true
	})
	row, _ := json.Marshal(downgradeRow{})
	if rows["clusterVersion"] != "3.7.0" || rows["downgrade"] != string(row) {
		t.Errorf("rows: %q", rows)
	}
}
