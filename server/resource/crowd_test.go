package resource_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/server/resource/object"
)

// sharing makes a client whose requests share one connection, in HTTP/2.
func (m *member) sharing() *member {
	to := &http.Transport{Protocols: new(http.Protocols)}
	to.Protocols.SetUnencryptedHTTP2(true)
	m.t.Cleanup(to.CloseIdleConnections)
	return &member{t: m.t, url: m.url, hdr: m.hdr, client: &http.Client{Transport: to}}
}

// TestWatchesOfAConnection hear the same, each what it selects, whoever of them comes and goes;
// writes and lists on their connection go on.
func TestWatchesOfAConnection(t *testing.T) {
	m := newMember(t).sharing()
	rev := m.must("POST", configmaps, configmap("first")).rv()
	open := func(query string) *watching {
		return m.watch(configmaps + "?watch=true&resourceVersion=" + rev + query)
	}
	var all []*watching
	for range 10 {
		all = append(all, open(""))
	}
	some := open("&labelSelector=on%3D1")
	for i := range 30 {
		name := fmt.Sprint("c", i)
		labels := []string{"on", fmt.Sprint(i % 2)}
		m.must("POST", configmaps, configmap(name, labels...))
		for _, w := range all {
			w.expect("ADDED " + name)
		}
		if i%2 == 1 {
			some.expect("ADDED " + name)
		}
		if i%3 == 0 { // who leads comes first, most of the time
			all[0].cancel()
			rev = m.must("PUT", configmaps+"/"+name, configmap(name, labels...)).rv()
			all = append(all[1:], open(""))
		}
	}
	if n := len(m.must("GET", configmaps, nil).items()); n < 31 {
		t.Errorf("a list of %d", n)
	}
}

// TestSlowWatchHurtsItselfOnly: one that takes nothing, on a connection where others take
// all. When it goes on it gets what it missed.
func TestSlowWatchHurtsItselfOnly(t *testing.T) {
	m := newMember(t).sharing()
	rev := m.must("POST", configmaps, configmap("first")).rv()
	path := configmaps + "?watch=true&resourceVersion=" + rev
	var quick []*watching
	quick = append(quick, m.watch(path))
	slow := m.open(context.Background(), "GET", path, nil)
	defer slow.Body.Close()
	quick = append(quick, m.watch(path))
	const many = 12 // more than a client keeps for who does not read
	for i := range many {
		o := configmap(fmt.Sprint("c", i))
		o["data"] = object.Object{"x": strings.Repeat("x", 900<<10)}
		m.must("POST", configmaps, o)
		for _, w := range quick {
			w.expect(fmt.Sprint("ADDED c", i))
		}
	}
	lines := bufio.NewScanner(slow.Body)
	lines.Buffer(nil, 8<<20)
	for i := range many {
		if !lines.Scan() || !strings.Contains(lines.Text(), fmt.Sprintf(`"name":"c%d"`, i)) {
			t.Fatalf("event %d: %.100q, %v", i, lines.Text(), lines.Err())
		}
	}
}
