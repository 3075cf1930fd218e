package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/keelson-io/keelson/server/porttest"
)

// Place makes room for one more member: ports and a directory. It is not
// started, and counts as one of Members only after Join.
func (c *Cluster) Place(name string) (*Member, error) {
	client, err := porttest.Claim()
	if err != nil {
		return nil, err
	}
	peer, err := porttest.Claim()
	if err != nil {
		return nil, err
	}
	m := &Member{
		Process:  Process{Name: name, Binary: c.System.Binary, Dir: filepath.Join(filepath.Dir(c.Members[0].Dir), name)},
		Endpoint: fmt.Sprintf("127.0.0.1:%d", client),
		PeerURL:  fmt.Sprintf("http://127.0.0.1:%d", peer),
		scheme:   "http",
	}
	return m, os.MkdirAll(m.Dir, 0o755)
}

// Join starts a member that was added to the cluster. initial is the value of
// --initial-cluster, state of --initial-cluster-state.
func (c *Cluster) Join(m *Member, initial, state string, args ...string) error {
	m.Args = append(memberArgs(m, Options{NoSync: true}, initial), "--initial-cluster-state", state)
	m.Args = append(m.Args, args...)
	c.Members = append(c.Members, m)
	return m.Start()
}
