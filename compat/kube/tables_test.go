package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/api/kinds"
)

const tableNamespace = "tables"

// TestTables compares the columns and cells of api/kinds with those of the
// tables that a kube-apiserver makes for kubectl, and its resources with what a
// kube-apiserver serves. The objects go into the store by hand: most states that
// have columns of their own take a node or a controller to come about.
func TestTables(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := start(ctx, t, everyVersion...)
	writer, err := NewWriter(w.server.Target)
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Discover(ctx, nil); err != nil {
		t.Fatal(err)
	}
	t.Run("resources", func(t *testing.T) { compareResources(t, writer) })
	text, err := os.ReadFile("testdata/tables.yaml")
	if err != nil {
		t.Fatal(err)
	}
	http, err := rest.HTTPClientFor(w.server.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split(string(text), "\n---\n") {
		value, o, err := prepare(doc)
		if err != nil {
			t.Fatal(err)
		}
		r, v := kinds.ByKind(o.APIVersion, o.Kind), kinds.View(o.Fields)
		t.Run(r.Name+"/"+v.Text("metadata.name"), func(t *testing.T) {
			if err := w.put(ctx, r.Key("/registry", v.Text("metadata.namespace"), v.Text("metadata.name")), value); err != nil {
				t.Fatal(err)
			}
			table, err := w.table(ctx, http, r, v)
			if err != nil {
				t.Fatal(err)
			}
			compareTable(t, table, o)
		})
	}
}

// prepare completes an object: a namespace and a time of birth, long ago.
func prepare(doc string) ([]byte, *kinds.Object, error) {
	text, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		return nil, nil, err
	}
	o, err := kinds.Decode(text)
	if err != nil {
		return nil, nil, err
	}
	r, meta := kinds.ByKind(o.APIVersion, o.Kind), kinds.View(o.Fields).Sub("metadata")
	meta["creationTimestamp"] = "2026-01-01T00:00:00Z"
	meta["uid"] = "11111111-0000-4000-8000-000000000000"
	if r.Namespaced {
		meta["namespace"] = tableNamespace
	}
	value, err := json.Marshal(o.Fields)
	return value, o, err
}

func (w *world) put(ctx context.Context, key string, value []byte) error {
	conn, err := w.store.Members[0].Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: value})
	return err
}

// table asks for an object as kubectl does, until the cache of the server has it.
func (w *world) table(ctx context.Context, client *http.Client, r *kinds.Resource, v kinds.View) (*metav1.Table, error) {
	path := "/apis/" + r.APIVersion()
	if r.Group == "" {
		path = "/api/" + r.Version
	}
	if r.Namespaced {
		path += "/namespaces/" + tableNamespace
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+path+"/"+r.Name+"/"+v.Text("metadata.name")+"?includeObject=None", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var table metav1.Table
	if err := json.Unmarshal(body, &table); err != nil || resp.StatusCode != http.StatusOK || len(table.Rows) != 1 {
		return nil, fmt.Errorf("%s: %s, %s", path, resp.Status, body)
	}
	return &table, nil
}

func compareTable(t *testing.T, table *metav1.Table, o *kinds.Object) {
	columns := kinds.Columns(o.APIVersion, o.Kind)
	cells := kinds.Cells(columns, o.Fields, time.Now(), true)
	var ours, theirs []string
	for i, c := range columns {
		ours = append(ours, fmt.Sprintf("%s %s wide=%v: %v", c.Name, c.Type, c.Wide, cells[i]))
	}
	for i, c := range table.ColumnDefinitions {
		theirs = append(theirs, fmt.Sprintf("%s %s wide=%v: %v", c.Name, c.Type, c.Priority > 0, table.Rows[0].Cells[i]))
	}
	if len(ours) != len(theirs) {
		t.Fatalf("ours   %q\ntheirs %q", ours, theirs)
	}
	for i := range ours {
		if ours[i] != theirs[i] {
			t.Errorf("ours   %s\ntheirs %s", ours[i], theirs[i])
		}
	}
}

// laterResources are of Kubernetes 1.37, whose kinds the table has.
var laterResources = []string{"scheduling.k8s.io/v1beta1", "storagemigration.k8s.io/v1"}

// compareResources: every resource is served under its name, scope, short names
// and subresources, and every persisted one that is served is known.
func compareResources(t *testing.T, writer *Writer) {
	for _, r := range kinds.Resources() {
		gv := schema.GroupVersion{Group: r.Group, Version: r.Version}
		served, ok := writer.served[gv.WithResource(r.Name)]
		if !ok {
			if !slices.Contains(laterResources, gv.String()) {
				t.Errorf("%s %s is not served", gv, r.Name)
			}
			continue
		}
		var sub []string
		for gvr := range writer.served {
			if name, ok := strings.CutPrefix(gvr.Resource, r.Name+"/"); ok && gvr.GroupVersion() == gv {
				sub = append(sub, name)
			}
		}
		slices.Sort(sub)
		ours := fmt.Sprint(r.Kind, r.Namespaced, r.Singular(), r.Short, r.Categories, r.Subresources)
		theirs := fmt.Sprint(served.Kind, served.Namespaced, served.SingularName, served.ShortNames, served.Categories, sub)
		if ours != theirs {
			t.Errorf("%s\nours   %s\ntheirs %s", r.Name, ours, theirs)
		}
	}
	for gvr, served := range writer.served {
		known := kinds.ByName(gvr.Group, gvr.Resource) != nil
		if !known && !strings.Contains(gvr.Resource, "/") {
			t.Error(errors.New("resources.txt lacks"), gvr, served.Kind)
		}
	}
}
