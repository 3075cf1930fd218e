package resource_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/resource/object"
)

// TestLimitRange fills in what containers do not say, and refuses what is too
// little or too much, in the words of a kube-apiserver.
func TestLimitRange(t *testing.T) {
	m := newMember(t)
	ranges := "/api/v1/namespaces/default/limitranges"
	made := m.must("POST", ranges, `{"metadata":{"name":"l"},"spec":{"limits":[
		{"type":"Container","max":{"cpu":"2"},"min":{"cpu":"100m","memory":"1Mi"},"default":{"memory":"64Mi"},"maxLimitRequestRatio":{"memory":"4"}},
		{"type":"Pod","max":{"cpu":"3"}},{"type":"PersistentVolumeClaim","min":{"storage":"1Gi"},"max":{"storage":"2Gi"}}]}}`)
	item, _ := object.List(made.body, "spec", "limits")[0].(object.Object)
	if got := fmt.Sprint(item["default"], item["defaultRequest"]); got != "map[cpu:2 memory:64Mi] map[cpu:2 memory:64Mi]" {
		t.Errorf("the range's own defaults: %s", got)
	}
	pod := func(resources ...string) answer {
		var containers []string
		for i, r := range resources {
			containers = append(containers, fmt.Sprintf(`{"name":"c%d","image":"i","resources":%s}`, i, r))
		}
		return m.do("POST", pods, `{"metadata":{"generateName":"p-"},"spec":{"containers":[`+strings.Join(containers, ",")+`]}}`)
	}
	a := pod(`{"requests":{"cpu":"500m"}}`)
	c, _ := object.List(a.body, "spec", "containers")[0].(object.Object)
	if got := fmt.Sprint(a.code, c["resources"], a.str("status", "qosClass")); got != "201 map[limits:map[cpu:2 memory:64Mi] requests:map[cpu:500m memory:64Mi]]Burstable" {
		t.Errorf("defaults: %s", got)
	}
	if got := a.str("metadata", "annotations", "kubernetes.io/limit-ranger"); got != "LimitRanger plugin set: memory request for container c0; cpu, memory limit for container c0" {
		t.Errorf("what it tells: %s", got)
	}
	for resources, why := range map[string]string{
		`{"requests":{"cpu":"50m"}}`:                                            `minimum cpu usage per Container is 100m, but request is 50m`,
		`{"limits":{"cpu":"2500m"},"requests":{"cpu":"1"}}`:                     `maximum cpu usage per Container is 2, but limit is 2500m`,
		`{"limits":{"memory":"10Mi"},"requests":{"memory":"2Mi"}}`:              `memory max limit to request ratio per Container is 4, but provided ratio is 5.000000`,
		`{"requests":{"cpu":"50m","memory":"512Ki"},"limits":{"memory":"1Mi"}}`: `[minimum cpu usage per Container is 100m, but request is 50m, minimum memory usage per Container is 1Mi, but request is 512Ki]`,
	} {
		if a := pod(resources); a.code != 403 || !strings.HasSuffix(a.str("message"), "is forbidden: "+why) {
			t.Errorf("%s: %d %s", resources, a.code, a.str("message"))
		}
	}
	if a := pod(`{}`, `{}`); a.code != 403 || !strings.HasSuffix(a.str("message"), "is forbidden: maximum cpu usage per Pod is 3, but limit is 4") {
		t.Errorf("two containers: %d %s", a.code, a.raw)
	}
	claims := "/api/v1/namespaces/default/persistentvolumeclaims"
	claim := func(size string) string {
		return `{"metadata":{"name":"c"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"` + size + `"}}}}`
	}
	m.refused(403, "Forbidden", "POST", claims, claim("3Gi"))
	m.refused(403, "Forbidden", "POST", claims, claim("1M"))
	m.must("POST", claims, claim("1Gi"))
}

const services = "/api/v1/namespaces/default/services"

func service(name, spec string) string {
	return `{"metadata":{"name":"` + name + `"},"spec":{"ports":[{"port":80}]` + spec + `}}`
}

// TestClusterIPs gives Services addresses: one each, kept, and given back.
func TestClusterIPs(t *testing.T) {
	m := newMember(t, func(cfg *server.Config) { cfg.ResourceServiceIPs = "10.1.0.0/28" })
	a := m.must("POST", services, service("a", `,"clusterIP":"10.1.0.3"`))
	if got := fmt.Sprint(a.str("spec", "clusterIP"), object.Strings(a.body, "spec", "clusterIPs"), object.Strings(a.body, "spec", "ipFamilies"), a.str("spec", "ipFamilyPolicy")); got != "10.1.0.3[10.1.0.3] [IPv4]SingleStack" {
		t.Errorf("%s", a.raw)
	}
	ip := m.must("GET", "/apis/networking.k8s.io/v1/ipaddresses/10.1.0.3", nil)
	if ip.str("spec", "parentRef", "name") != "a" || ip.str("spec", "parentRef", "namespace") != "default" {
		t.Errorf("%s", ip.raw)
	}
	refused := func(method, path, body, why string) {
		t.Helper()
		if got := m.refused(422, "Invalid", method, path, body).str("message"); !strings.HasSuffix(got, why) {
			t.Errorf("%s", got)
		}
	}
	refused("POST", services, service("b", `,"clusterIP":"10.1.0.3"`),
		`spec.clusterIPs: Invalid value: ["10.1.0.3"]: failed to allocate IP 10.1.0.3: provided IP is already allocated`)
	refused("POST", services, service("b", `,"clusterIP":"10.9.0.3"`),
		`failed to allocate IP 10.9.0.3: the provided IP (10.9.0.3) is not in the valid range. The range of valid IPs is 10.1.0.0/28`)
	// It stays, whoever leaves it out, and cannot become another.
	if a = m.must("PUT", services+"/a", service("a", `,"selector":{"x":"y"}`)); a.str("spec", "clusterIP") != "10.1.0.3" {
		t.Errorf("%s", a.raw)
	}
	refused("PUT", services+"/a", service("a", `,"clusterIP":"10.1.0.4"`), `spec.clusterIPs[0]: Invalid value: ["10.1.0.4"]: may not change once set`)
}

// TestClusterIPsRunOut lets many at a small range at once.
func TestClusterIPsRunOut(t *testing.T) {
	m := newMember(t, func(cfg *server.Config) { cfg.ResourceServiceIPs = "10.1.0.0/28" })
	m.must("POST", services+"?dryRun=All", service("dry", ""))
	const count, room = 20, 14 // neither the network's address nor the broadcast one
	var wait sync.WaitGroup
	answers := make([]answer, count)
	for i := range count {
		wait.Go(func() { answers[i] = m.do("POST", services, service(fmt.Sprint("s", i), "")) })
	}
	wait.Wait()
	owners := map[string]string{}
	for _, a := range answers {
		ip := a.str("spec", "clusterIP")
		switch {
		case a.code == 201 && owners[ip] == "" && strings.HasPrefix(ip, "10.1.0."):
			owners[ip] = a.str("metadata", "name")
		case a.code != 500 || !strings.HasSuffix(a.str("message"), "range is full"):
			t.Errorf("%d %s", a.code, a.raw)
		}
	}
	addresses := func() []string { return m.must("GET", "/apis/networking.k8s.io/v1/ipaddresses", nil).items() }
	if len(owners) != room || len(addresses()) != room {
		t.Fatalf("%d Services have addresses, %d are taken, want %d", len(owners), len(addresses()), room)
	}
	if a := m.must("POST", services, service("none", `,"clusterIP":"None"`)); a.str("spec", "ipFamilyPolicy") != "RequireDualStack" {
		t.Errorf("headless: %s", a.raw)
	}
	m.must("POST", services, `{"metadata":{"name":"outside"},"spec":{"type":"ExternalName","externalName":"a.b"}}`)
	// What goes, or needs none any more, gives its address back.
	given := 0
	for _, name := range owners {
		switch given {
		case 0:
			m.must("DELETE", services+"/"+name, nil)
		case 1:
			m.must("PATCH", services+"/"+name, merged(`{"spec":{"type":"ExternalName","externalName":"a.b"}}`))
		case 2:
			m.must("PATCH", services+"/"+name, merged(`{"metadata":{"finalizers":["demo.io/hold"]}}`))
			m.must("DELETE", services+"/"+name, nil)
			m.must("PATCH", services+"/"+name, merged(`{"metadata":{"finalizers":null}}`))
		default:
			continue
		}
		given++
		if got := len(addresses()); got != room-given {
			t.Errorf("%d are taken after %d were given back", got, given)
		}
	}
	m.must("PATCH", services+"/outside", merged(`{"spec":{"type":"ClusterIP","externalName":null,"ports":[{"port":80}]}}`))
	if got := len(addresses()); got != room-given+1 {
		t.Errorf("%d are taken", got)
	}
}
