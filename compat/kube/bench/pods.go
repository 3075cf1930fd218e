package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// podBytes is the size of a pod in an answer: a usual one, with its status, the account
// of its fields' owners and some annotations.
const podBytes = 4096

// namespaces that pods are spread over.
const namespaces = 10

func namespaceOf(i int) string { return fmt.Sprintf("bench-%d", i%namespaces) }

func podName(i int) string { return fmt.Sprintf("pod-%06d", i) }

// pod is a pod as a ReplicaSet's controller creates it, with padding bytes of an
// annotation.
func pod(i, padding int) []byte {
	rng := rand.New(rand.NewPCG(uint64(i), 17))
	var env strings.Builder
	for n := range 8 {
		fmt.Fprintf(&env, `%s{"name":"SETTING_%d","value":"%016x"}`, map[bool]string{true: ","}[n > 0], n, rng.Uint64())
	}
	var pad strings.Builder
	for pad.Len() < padding {
		fmt.Fprintf(&pad, "%016x ", rng.Uint64())
	}
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"app":"web-%d","tier":"front","pod-template-hash":"%08x"},`+
		`"annotations":{"bench/padding":%q}},"spec":{"nodeName":"node-%03d","terminationGracePeriodSeconds":30,"containers":[{"name":"web",`+
		`"image":"registry.example.com/shop/web:1.2.3","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],"env":[%s],`+
		`"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"memory":"256Mi"}},"volumeMounts":[{"name":"config","mountPath":"/etc/web"}]}],`+
		`"volumes":[{"name":"config","configMap":{"name":"web"}}]}}`,
		podName(i), i%100, rng.Uint32(), pad.String()[:padding], i%500, env.String())
}

// calibrate makes the namespaces and finds the padding.
func (s *side) calibrate(ctx context.Context) error {
	for i := range namespaces {
		body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, namespaceOf(i))
		if _, err := s.call(ctx, http.MethodPost, "/api/v1/namespaces", "application/json", body); err != nil {
			return err
		}
	}
	const probe = 999_990
	if err := s.create(ctx, probe); err != nil {
		return err
	}
	path := "/api/v1/namespaces/" + namespaceOf(probe) + "/pods/" + podName(probe)
	size, err := s.call(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	if s.padding = podBytes - int(size); s.padding < 0 {
		return fmt.Errorf("a pod without padding has %d bytes", size)
	}
	_, err = s.call(ctx, http.MethodDelete, path+"?gracePeriodSeconds=0", "", nil)
	return err
}
