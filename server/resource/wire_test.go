package resource_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/resource/object"
)

// TestCompressed sends long answers as gzip to who takes it, with the same content.
func TestCompressed(t *testing.T) {
	m := newMember(t)
	big := object.Object{"metadata": object.Object{"name": "big"}, "data": object.Object{"x": strings.Repeat("0123456789", 20<<10)}}
	m.must("POST", configmaps, big)
	m.must("POST", configmaps, configmap("small"))
	const metadata = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	for _, ask := range []struct{ path, accept string }{
		{configmaps, "application/json"},
		{configmaps, "application/vnd.kubernetes.protobuf" + metadata + ",application/json" + metadata},
		{configmaps, "application/json" + metadata},
		{configmaps + "/big", ""},
		{configmaps + "/small", ""},
	} {
		plain := m.must("GET", ask.path, nil, "Accept", ask.accept, "Accept-Encoding", "identity")
		zipped := m.must("GET", ask.path, nil, "Accept", ask.accept, "Accept-Encoding", "gzip")
		if plain.hdr.Get("Content-Encoding") != "" {
			t.Errorf("%v: not asked for", ask)
		}
		if ask.path == configmaps+"/small" {
			if zipped.hdr.Get("Content-Encoding") != "" {
				t.Errorf("%v is not worth it", ask)
			}
			continue
		}
		r, err := gzip.NewReader(bytes.NewReader(zipped.raw))
		if err != nil || zipped.hdr.Get("Content-Encoding") != "gzip" || zipped.hdr.Get("Vary") == "" {
			t.Fatalf("%v: %v %v", ask, zipped.hdr, err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, plain.raw) {
			t.Errorf("%v: %.200s, want %.200s: %v", ask, b, plain.raw, err)
		}
	}
}

// TestMetadataAlone gets, lists and watches the metadata of objects.
func TestMetadataAlone(t *testing.T) {
	m := newMember(t)
	made := m.must("POST", configmaps, `{"metadata":{"name":"a","labels":{"l":"1"}},"data":{"x":"y"}}`)
	accept := func(kind string) []string {
		return []string{"Accept", "application/json;as=" + kind + ";g=meta.k8s.io;v=v1"}
	}
	check := func(o object.Object) {
		t.Helper()
		if o["data"] != nil || object.String(o, "metadata", "labels", "l") != "1" || object.String(o, "metadata", "uid") != made.str("metadata", "uid") {
			t.Errorf("%v", o)
		}
	}
	one := m.must("GET", configmaps+"/a", nil, accept("PartialObjectMetadata")...)
	check(one.body)
	if one.str("kind") != "PartialObjectMetadata" || one.str("apiVersion") != "meta.k8s.io/v1" {
		t.Errorf("%s", one.raw)
	}
	list := m.must("GET", configmaps, nil, accept("PartialObjectMetadataList")...)
	if items := object.List(list.body, "items"); list.str("kind") != "PartialObjectMetadataList" || list.rv() == "" || len(items) != 1 {
		t.Errorf("%s", list.raw)
	} else {
		check(items[0].(object.Object))
	}
	w := m.watch(configmaps+"?watch=true&resourceVersion=0", accept("PartialObjectMetadata")...)
	check(w.expect("ADDED a").Object)
	m.must("PATCH", configmaps+"/a", merged(`{"data":{"x":"z"}}`))
	check(w.expect("MODIFIED a").Object)
	m.must("DELETE", configmaps+"/a", nil)
	check(w.expect("DELETED a").Object)
	m.refused(406, "NotAcceptable", "GET", configmaps, nil, "Accept", "text/csv")
}

// TestOldVersions asks for what compaction took: lists, continued lists, watches.
func TestOldVersions(t *testing.T) {
	var store string
	m := newMember(t, func(cfg *server.Config) { store = cfg.ListenClientURLs[0].Host })
	first := m.must("POST", configmaps, configmap("a"))
	m.must("POST", configmaps, configmap("b"))
	page := m.must("GET", configmaps+"?limit=1", nil)
	m.must("POST", definitions, widgetDefinition) // a collection that begins after these
	m.must("GET", widgets, nil)
	last, err := strconv.ParseInt(m.must("POST", configmaps, configmap("c")).rv(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(store, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Compact(context.Background(), &pb.CompactionRequest{Revision: last}); err != nil {
		t.Fatal(err)
	}
	m.refused(410, "Expired", "GET", configmaps+"?resourceVersionMatch=Exact&resourceVersion="+first.rv(), nil)
	m.refused(410, "Expired", "GET", configmaps+"?limit=1&resourceVersion="+first.rv(), nil)
	// A page whose revision is gone says where to go on, at the newest one.
	gone := m.refused(410, "Expired", "GET", configmaps+"?limit=1&continue="+page.str("metadata", "continue"), nil)
	rest := m.must("GET", configmaps+"?continue="+gone.str("metadata", "continue"), nil)
	if fmt.Sprint(rest.items()) != "[b c]" {
		t.Errorf("the rest: %s", rest.raw)
	}
	m.refused(400, "BadRequest", "GET", configmaps+"?continue=nonsense", nil)
	w := m.watch(widgets + "?watch=true&resourceVersion=1")
	w.expect("ERROR Expired")
	w.ends()
	// What the cache still has needs no history.
	m.watch(configmaps + "?watch=true&resourceVersion=" + page.rv()).expect("ADDED c")
}

// TestProtobuf creates an object as the typed clients send it, and deletes it with
// options in protobuf.
func TestProtobuf(t *testing.T) {
	m := newMember(t)
	field := func(n byte, b []byte) []byte { return append([]byte{n<<3 | 2, byte(len(b))}, b...) }
	envelope := func(version, kind string, raw []byte) typed {
		meta := append(field(1, []byte(version)), field(2, []byte(kind))...)
		return typed{"application/vnd.kubernetes.protobuf", append([]byte("k8s\x00"), append(field(1, meta), field(2, raw)...)...)}
	}
	raw := append(field(1, field(1, []byte("p"))), field(2, append(field(1, []byte("x")), field(2, []byte("y"))...))...)
	if a := m.must("POST", configmaps, envelope("v1", "ConfigMap", raw)); a.code != 201 || a.str("metadata", "name") != "p" || a.str("data", "x") != "y" {
		t.Errorf("%s", a.raw)
	}
	m.refused(400, "BadRequest", "POST", configmaps, envelope("v1", "Secret", raw))
	m.refused(400, "BadRequest", "POST", configmaps, envelope("v1", "ConfigMap", []byte{0xff, 0xff}))
	m.refused(400, "BadRequest", "POST", configmaps, typed{"application/vnd.kubernetes.protobuf", []byte("{}")})
	// DeleteOptions: preconditions (2) with another uid (1).
	m.refused(409, "Conflict", "DELETE", configmaps+"/p", envelope("v1", "DeleteOptions", field(2, field(1, []byte("another")))))
	m.must("DELETE", configmaps+"/p", envelope("v1", "DeleteOptions", field(4, []byte("Background"))))
}

// TestYAMLAnswers: who asks for YAML gets objects, lists and refusals in it.
func TestYAMLAnswers(t *testing.T) {
	m := newMember(t)
	m.must("POST", configmaps, configmap("a", "on", "1"))
	for path, want := range map[string]string{
		configmaps + "/a":    "kind: ConfigMap",
		configmaps:           "- metadata:",
		configmaps + "/none": "reason: NotFound",
	} {
		resp := m.open(t.Context(), "GET", path, nil, "Accept", "application/yaml, application/json")
		defer resp.Body.Close()
		b := make([]byte, 1<<10)
		n, _ := resp.Body.Read(b)
		if got := string(b[:n]); resp.Header.Get("Content-Type") != "application/yaml" || !strings.Contains(got, want) {
			t.Errorf("%s: %s %s", path, resp.Header.Get("Content-Type"), got)
		}
	}
	if a := m.do("GET", configmaps+"?watch=true", nil, "Accept", "application/yaml"); a.code != 406 {
		t.Errorf("a watch in YAML: %d", a.code)
	}
}
