package transport

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// childEnv makes the test binary play a member that lives until it is killed.
const childEnv = "KEELSON_TRANSPORT_CHILD"

// TestChild is the body of the processes that TestGRPCKilledProcess starts; run
// by itself it does nothing.
func TestChild(t *testing.T) {
	parent := os.Getenv(childEnv)
	if parent == "" {
		return
	}
	m := startMember(t, 2, memberOptions{})
	m.SetPeers([]Peer{{ID: 1, URLs: []string{parent}}})
	m.await(t, 1, "up 1")
	fmt.Println("url " + m.url)
	_, _ = io.Copy(io.Discard, os.Stdin) // the parent's end closes it
}

// startChild runs a member in a process of its own and returns its URL.
func startChild(t *testing.T, parent *member) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+parent.url)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead already
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if url, found := strings.CutPrefix(lines.Text(), "url "); found {
			return cmd, url
		}
	}
	t.Fatal("the child said nothing")
	return nil, ""
}

// SIGKILL of a peer's process is told as PeerDown, without any timeout, while
// messages are on their way.
func TestGRPCKilledProcess(t *testing.T) {
	a := startMember(t, 1, memberOptions{})
	var took []time.Duration
	for round := 1; round <= 5; round++ {
		child, url := startChild(t, a)
		a.SetPeers([]Peer{{ID: 2, URLs: []string{url}}})
		a.await(t, round, "up 2")
		downs := a.count("down 2")
		for i := range uint64(100) {
			a.Send(2, []*raftpb.Message{appendMessage(1, 2, i, make([]byte, 1000)), heartbeat(1, 2, i)})
		}
		killed := time.Now()
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		a.await(t, downs+1, "down 2")
		took = append(took, time.Since(killed))
	}
	slices.Sort(took)
	t.Logf("killed processes were seen as down after %v", took)
}
