package kinds

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// stored are the objects of testdata/registry.txt by their keys; compat/kinds
// writes it.
func stored(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/registry.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if out[key], err = base64.StdEncoding.DecodeString(value); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestStored(t *testing.T) {
	for key, value := range stored(t) {
		o, err := Decode(value)
		if err != nil || len(o.Unknown) > 0 {
			t.Fatal(key, err, o)
		}
		v := View(o.Fields)
		if !strings.HasSuffix(key, "/"+v.Text("metadata.name")) || v.Text("kind") != o.Kind || v.Text("apiVersion") != o.APIVersion {
			t.Errorf("%s is %s %s %s", key, o.APIVersion, o.Kind, v.Text("metadata.name"))
		}
		if o.Protobuf == (value[0] == '{') {
			t.Errorf("%s: protobuf %v", key, o.Protobuf)
		}
	}
}

// TestForms has a value of each type that has a JSON of its own.
func TestForms(t *testing.T) {
	all := stored(t)
	for _, tc := range []struct{ key, path, want string }{
		{"/registry/leases/kube-node-lease/node-1", "spec.renewTime", `"2026-01-02T00:00:00.123456Z"`},
		{"/registry/leases/kube-node-lease/node-1", "spec.leaseDurationSeconds", `40`},
		{"/registry/configmaps/default/settings", "binaryData", `{"raw":"AAEC/w=="}`},
		{"/registry/configmaps/default/settings", "data", `{"a":"1","empty":""}`},
		{"/registry/secrets/default/token", "data.none", `""`},
		{"/registry/services/specs/default/web", "spec.ports", `[{"name":"http","nodePort":30080,"port":80,"protocol":"TCP","targetPort":"http"},{"name":"alt","port":81,"protocol":"TCP","targetPort":8081}]`},
		{"/registry/services/specs/default/web", "status", `{"loadBalancer":{}}`},
		{"/registry/pods/default/web-5d9c7-abcde", "spec.securityContext", `{"runAsUser":0}`},
		{"/registry/pods/default/web-5d9c7-abcde", "metadata.managedFields", `[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:phase":{}}},"manager":"kubelet","operation":"Update","subresource":"status","time":"2026-01-02T00:00:05Z"}]`},
		{"/registry/pods/default/web-5d9c7-abcde", "status.conditions", `[{"lastProbeTime":null,"lastTransitionTime":"2026-01-02T00:00:05Z","status":"True","type":"Ready"}]`},
		{"/registry/pods/kube-system/dns-0", "spec.containers", `[{"image":"registry.example/dns:9","name":"dns","resources":{}}]`},
		{"/registry/deployments/default/web", "spec.strategy.rollingUpdate", `{"maxSurge":"25%","maxUnavailable":1}`},
		{"/registry/persistentvolumeclaims/default/data", "spec.resources", `{"requests":{"storage":"1Gi"}}`},
		{"/registry/clusterroles/system:nothing", "rules", `null`},
		{"/registry/example.io/widgets/default/gear", "spec", `{"ratio":0.5,"size":3,"teeth":["a","b"]}`},
	} {
		o, err := Decode(all[tc.key])
		if err != nil {
			t.Fatal(tc.key, err)
		}
		have, err := json.Marshal(View(o.Fields).At(tc.path))
		if err != nil || string(have) != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.key, tc.path, have, tc.want)
		}
	}
}

// envelope wraps the bytes of an object.
func envelope(apiVersion, kind string, body []byte) []byte {
	meta := append(tagged(1, []byte(apiVersion)), tagged(2, []byte(kind))...)
	return append([]byte("k8s\x00"), append(tagged(1, meta), tagged(2, body)...)...)
}

func tagged(number uint64, b []byte) []byte {
	out := binary.AppendUvarint(nil, number<<3|wireBytes)
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

func TestUnknownFieldsAreReported(t *testing.T) {
	meta := append(tagged(1, []byte("n")), tagged(99, []byte("future"))...)
	container := append(tagged(1, []byte("c")), binary.AppendUvarint(binary.AppendUvarint(nil, 77<<3), 300)...)
	body := append(tagged(1, meta), tagged(2, tagged(2, container))...)
	o, err := Decode(envelope("v1", "Pod", body))
	if err != nil {
		t.Fatal(err)
	}
	want := []Unknown{{"metadata", 99, []byte("future")}, {"spec.containers[0]", 77, []byte{0xac, 0x02}}}
	if !reflect.DeepEqual(o.Unknown, want) {
		t.Errorf("%v, want %v", o.Unknown, want)
	}
	if name := View(o.Fields).Text("metadata.name"); name != "n" {
		t.Errorf("name %q", name)
	}
}

func TestPartsOfAMessageAreMerged(t *testing.T) {
	body := append(tagged(1, tagged(1, []byte("n"))), tagged(1, tagged(3, []byte("ns")))...)
	o, err := Decode(envelope("v1", "Namespace", body))
	if err != nil || View(o.Fields).Text("metadata.name") != "n" || View(o.Fields).Text("metadata.namespace") != "ns" {
		t.Error(o, err)
	}
}

func TestRefused(t *testing.T) {
	deep := []byte{}
	for range maxDepth + 1 {
		deep = tagged(28, deep) // a JSON schema that is not another
	}
	crd := func(schema []byte) []byte {
		version := tagged(4, tagged(1, schema))
		return envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", tagged(2, tagged(7, version)))
	}
	many := make([]byte, 0, 4<<20)
	for range maxValues / 2 {
		many = append(many, tagged(2, nil)...) // an empty container
	}
	for name, tc := range map[string]struct {
		value []byte
		is    error
		says  string
	}{
		"text":          {[]byte("hello"), ErrNotObject, ""},
		"empty":         {nil, ErrNotObject, ""},
		"other JSON":    {[]byte(`{"a":1}`), ErrNotObject, "apiVersion"},
		"cut JSON":      {[]byte(`{"a":`), ErrMalformed, ""},
		"two objects":   {[]byte(`{"apiVersion":"v1","kind":"Pod"} {}`), ErrMalformed, "follows"},
		"deep JSON":     {[]byte(`{"apiVersion":"v1","kind":"X","a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "}"), ErrMalformed, "deeper"},
		"no tag":        {[]byte("k8s\x00\x00"), ErrMalformed, "tag"},
		"cut":           {envelope("v1", "Pod", []byte{0x0a, 0x05, 1}), ErrMalformed, "length"},
		"group":         {envelope("v1", "Pod", []byte{0x0b}), ErrMalformed, "wire type 3"},
		"wrong type":    {envelope("v1", "Pod", []byte{0x08, 1}), ErrMalformed, "metadata has wire type 0"},
		"encoded":       {append(envelope("v1", "Pod", nil), tagged(3, []byte("gzip"))...), ErrMalformed, "gzip"},
		"bad raw JSON":  {envelope("apps/v1", "ControllerRevision", tagged(2, tagged(1, []byte("{")))), ErrMalformed, "EOF"},
		"deep protobuf": {crd(deep), ErrMalformed, "deeper than 200"},
		"bomb":          {envelope("v1", "Pod", tagged(2, many)), ErrMalformed, "more than"},
	} {
		if _, err := Decode(tc.value); !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var unknown *UnknownKindError
	if o, err := Decode(envelope("example.io/v1", "Widget", nil)); !errors.As(err, &unknown) || unknown.Kind != "Widget" || o.Kind != "Widget" {
		t.Errorf("unknown kind: %v %v", o, err)
	}
}

func TestEncrypted(t *testing.T) {
	for value, want := range map[string]string{
		"k8s:enc:aescbc:v1:key1:\x00\x01bytes": "aescbc:v1:key1",
		"k8s:enc:secretbox:v1:k:\xff":          "secretbox:v1:k",
		"k8s:enc:kms:v2:my-kms:\n\x10:x:y":     "kms:v2:my-kms",
		"k8s:enc:":                             "",
		"k8s:enc:new\x00":                      "new",
	} {
		var e *EncryptedError
		if _, err := Decode([]byte(value)); !errors.As(err, &e) || e.Provider != want {
			t.Errorf("%q: %v, want %q", value, err, want)
		}
	}
}

// TestCutOff cuts each stored object at each byte: an error or an object, no panic.
func TestCutOff(t *testing.T) {
	for key, value := range stored(t) {
		for i := range value {
			if o, err := Decode(value[:i]); (o == nil || o.Fields == nil) == (err == nil) {
				t.Errorf("%s cut at %d: %v, %v", key, i, o, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, value := range stored(f) {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		o, err := Decode(value)
		if err != nil {
			return
		}
		if _, err := json.Marshal(o.Fields); err != nil {
			t.Fatalf("what was decoded is not JSON: %v", err)
		}
		for _, c := range Cells(Columns(o.APIVersion, o.Kind), o.Fields, noon, true) {
			_ = fmt.Sprint(c)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	value := stored(b)["/registry/pods/default/web-5d9c7-abcde"]
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		if _, err := Decode(value); err != nil {
			b.Fatal(err)
		}
	}
}
