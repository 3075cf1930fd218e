package resource

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// benchPod is a pod as a ReplicaSet's controller creates it.
var benchPod = fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"app":"web-1","tier":"front","pod-template-hash":"12345678"},`+
	`"annotations":{"bench/padding":%q}},"spec":{"nodeName":"node-001","terminationGracePeriodSeconds":30,"containers":[{"name":"web",`+
	`"image":"registry.example.com/shop/web:1.2.3","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],"env":[`+
	`{"name":"S0","value":"0"},{"name":"S1","value":"1"},{"name":"S2","value":"2"},{"name":"S3","value":"3"},{"name":"S4","value":"4"},{"name":"S5","value":"5"}],`+
	`"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"256Mi"}},"volumeMounts":[{"name":"config","mountPath":"/etc/web"}]}],`+
	`"volumes":[{"name":"config","configMap":{"name":"web"}}]}}`, strings.Repeat("0123456789abcdef ", 64))

// BenchmarkPatch is what a change of an annotation costs before it is proposed, and its answer.
func BenchmarkPatch(b *testing.B) {
	s := newLoneStore(b)
	s.put("/registry/namespaces/default", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}`)
	s.hears(true)
	l, fake := runLayer(b, s)
	until(b, fake, "the layer has caught up", func() bool { return l.feed.revision() > 0 })
	send := func(method, path, media, body string) []byte {
		r := httptest.NewRequest(method, path+"?dryRun=All", strings.NewReader(body))
		r.Header.Set("Content-Type", media)
		r.Header.Set("User-Agent", "bench/1")
		w := httptest.NewRecorder()
		if l.ServeHTTP(w, r); w.Code/100 != 2 {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
		return w.Body.Bytes()
	}
	const pods = "/api/v1/namespaces/default/pods"
	s.put("/registry/pods/default/p", string(send(http.MethodPost, pods, jsonType, benchPod)))
	turn := func(n int) []byte {
		return send(http.MethodPatch, pods+"/p", mergePatchType, fmt.Sprintf(`{"metadata":{"annotations":{"bench/turn":"%d"}}}`, n))
	}
	s.put("/registry/pods/default/p", string(turn(0)))
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		turn(n)
	}
}
