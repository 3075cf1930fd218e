package resource_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

func nodePortOf(a answer) int64 {
	for _, v := range object.List(a.body, "spec", "ports") {
		n, _ := object.Int(v.(object.Object), "nodePort")
		return n
	}
	return 0
}

// TestNodePorts: no two Services have one, whoever asks at once; what goes gives its back.
func TestNodePorts(t *testing.T) {
	m := newMember(t)
	a := m.must("POST", services, service("a", `,"type":"NodePort"`))
	first := nodePortOf(a)
	if first < 30000 || first > 32767 {
		t.Fatalf("%s", a.raw)
	}
	same := m.do("POST", services, service("b", fmt.Sprintf(`,"type":"NodePort","ports":[{"port":80,"nodePort":%d}]`, first)))
	same.wants(t, 422, fmt.Sprintf(`Service "b" is invalid: spec.ports[0].nodePort: Invalid value: %d: provided port is already allocated`, first),
		fmt.Sprintf("Invalid value: %d: provided port is already allocated", first))
	out := m.do("POST", services, service("b", `,"type":"NodePort","ports":[{"port":80,"nodePort":80}]`))
	const why = "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
	out.wants(t, 422, `Service "b" is invalid: spec.ports[0].nodePort: `+why, why)

	if again := m.must("PUT", services+"/a", service("a", `,"type":"NodePort","selector":{"x":"y"}`)); nodePortOf(again) != first {
		t.Errorf("an update that says nothing of it changes the port: %s", again.raw)
	}
	m.must("PUT", services+"/a", service("a", ""))
	m.must("POST", services, service("b", fmt.Sprintf(`,"type":"NodePort","ports":[{"port":80,"nodePort":%d}]`, first)))
	m.must("DELETE", services+"/b", nil)
	both := m.must("POST", services, service("c", fmt.Sprintf(`,"type":"LoadBalancer","externalTrafficPolicy":"Local",`+
		`"ports":[{"name":"t","port":53,"nodePort":%d},{"name":"u","port":53,"protocol":"UDP"}]`, first)))
	list := object.List(both.body, "spec", "ports")
	other, _ := object.Int(list[1].(object.Object), "nodePort")
	health, _ := object.Int(both.body, "spec", "healthCheckNodePort")
	if other != first || health == 0 || health == first {
		t.Errorf("%s", both.raw)
	}

	const many = 30
	var wait sync.WaitGroup
	var mu sync.Mutex
	taken := map[int64]string{first: "c", health: "c"}
	for i := range many {
		wait.Go(func() {
			name := fmt.Sprint("n", i)
			n := nodePortOf(m.do("POST", services, service(name, `,"type":"NodePort"`)))
			mu.Lock()
			defer mu.Unlock()
			if n == 0 || taken[n] != "" {
				t.Errorf("%s has %d, %s too", name, n, taken[n])
			}
			taken[n] = name
		})
	}
	wait.Wait()
}
