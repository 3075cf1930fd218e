// Scripts starts a cluster of three members on loopback, for trying things out:
// `make run`. It prints where to find them, starts a member again that ends,
// and stops all of them at Ctrl-C. The data stays in its directory for the next
// time. It signals only the processes that it started itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Times of a person's patience.
const (
	startLimit   = 30 * time.Second
	stopLimit    = 10 * time.Second
	restartAfter = 3 * time.Second
	pollEvery    = 100 * time.Millisecond
)

func main() {
	kvd := flag.String("kvd", "bin/kvd", "the kvd program")
	dir := flag.String("dir", "local.kvd", "where data and logs go")
	flag.Parse()
	runtime.LockOSThread() // members die with the thread that started them
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kvd, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run starts the members and keeps them until ctx ends.
func run(ctx context.Context, kvd, dir string) error {
	members, dir, err := plan(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ended := make(chan ending, len(members))
	defer stopAll(members, dir, ended)
	for _, m := range members {
		if err := m.start(kvd, dir, members, ended); err != nil {
			return err
		}
	}
	if err := awaitHealth(ctx, members, dir, ended); err != nil || ctx.Err() != nil {
		return err
	}
	announce(members, dir)
	return supervise(ctx, kvd, dir, members, ended)
}

// supervise starts members again that end, until ctx ends.
func supervise(ctx context.Context, kvd, dir string, members []*member, ended chan ending) error {
	again := make(chan *member, len(members))
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nstopping; the data stays in", dir)
			return nil
		case e := <-ended:
			m := e.m
			m.running = false
			fmt.Printf("%s (pid %d) ended: %s; it starts again in %s\n", m.name, m.pid, e.text(dir), restartAfter)
			time.AfterFunc(restartAfter, func() { again <- m })
		case m := <-again:
			if err := m.start(kvd, dir, members, ended); err != nil {
				return err
			}
			fmt.Printf("%s runs again, pid %d\n", m.name, m.pid)
		}
	}
}

// member is one kvd process. Its fields belong to the main goroutine. A
// goroutine waits for the process, whose end it sends once; until then its pid
// cannot be given to another process, so that signals reach only our own.
type member struct {
	name         string
	client, peer string // host:port
	cmd          *exec.Cmd
	pid          int
	running      bool
}

// ending says how a member's process ended.
type ending struct {
	m      *member
	reason string // empty: exit code 0
}

// plan chooses ports: etcd's usual ones, or the next hundred that are free. The
// data lives in a directory of its own for each choice, because a member's
// identity is made of its address.
func plan(dir string) ([]*member, string, error) {
	for shift := 0; shift < 1000; shift += 100 {
		members := make([]*member, 3)
		free := true
		for i, port := range []int{2379, 22379, 32379} {
			members[i] = &member{
				name:   fmt.Sprintf("m%d", i+1),
				client: fmt.Sprintf("127.0.0.1:%d", port+shift),
				peer:   fmt.Sprintf("127.0.0.1:%d", port+shift+1),
			}
			free = free && isFree(members[i].client) && isFree(members[i].peer)
		}
		if free {
			return members, filepath.Join(dir, fmt.Sprint(2379+shift)), nil
		}
	}
	return nil, "", errors.New("no free ports: 2379, 22379, 32379 and their neighbours are all taken")
}

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func (m *member) start(kvd, dir string, all []*member, ended chan<- ending) error {
	var initial []string
	for _, o := range all {
		initial = append(initial, o.name+"=http://"+o.peer)
	}
	log, err := os.OpenFile(m.log(dir), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	m.cmd = exec.Command(kvd,
		"--name", m.name, "--data-dir", filepath.Join(dir, m.name),
		"--listen-client-urls", "http://"+m.client, "--advertise-client-urls", "http://"+m.client,
		"--listen-peer-urls", "http://"+m.peer, "--initial-advertise-peer-urls", "http://"+m.peer,
		"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-token", "local")
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.Env = withoutEtcd(os.Environ())
	m.cmd.SysProcAttr = ownGroup() // Ctrl-C is for us; we pass it on once
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.pid, m.running = m.cmd.Process.Pid, true
	cmd := m.cmd
	go func() {
		e := ending{m: m}
		if err := cmd.Wait(); err != nil {
			e.reason = err.Error()
		}
		ended <- e
	}()
	return nil
}

func (e ending) text(dir string) string {
	if e.reason == "" {
		return "exit code 0"
	}
	return e.reason + "; see " + e.m.log(dir)
}

func (m *member) log(dir string) string { return filepath.Join(dir, m.name+".log") }

// withoutEtcd drops variables that would configure the members.
func withoutEtcd(environ []string) []string {
	var out []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "ETCD_") {
			out = append(out, e)
		}
	}
	return out
}

func awaitHealth(ctx context.Context, members []*member, dir string, ended <-chan ending) error {
	deadline := time.After(startLimit)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		healthy := 0
		for _, m := range members {
			if get(m.client, "/health") != "" {
				healthy++
			}
		}
		if healthy == len(members) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case e := <-ended:
			e.m.running = false
			return fmt.Errorf("%s did not start: %s", e.m.name, e.text(dir))
		case <-deadline:
			return fmt.Errorf("only %d of %d members are healthy after %s", healthy, len(members), startLimit)
		case <-tick.C:
		}
	}
}

// get returns the body of a page, or nothing.
func get(addr, path string) string {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

func announce(members []*member, dir string) {
	var endpoints []string
	fmt.Println("A cluster of three runs:")
	for _, m := range members {
		role := ""
		if strings.Contains(get(m.client, "/metrics"), "\netcd_server_is_leader 1") {
			role = "  leader"
		}
		fmt.Printf("  %s  %-23s pid %-7d log %s%s\n", m.name, "http://"+m.client, m.pid, m.log(dir), role)
		endpoints = append(endpoints, m.client)
	}
	fmt.Printf("\nTry, in another terminal:\n  curl http://%s/health\n", members[0].client)
	fmt.Printf("  export KVCTL_ENDPOINTS=%s\n  bin/kvctl status\n  bin/kvctl put greeting hello\n\nCtrl-C stops the cluster.\n", strings.Join(endpoints, ","))
}

// stopAll asks every member to stop, once, and ends those that do not.
func stopAll(members []*member, dir string, ended <-chan ending) {
	left := 0
	for _, m := range members {
		if m.running && m.cmd.Process.Signal(syscall.SIGTERM) == nil {
			left++
		}
	}
	limit := time.After(stopLimit)
	for left > 0 {
		select {
		case e := <-ended:
			left--
			e.m.running = false
			if e.reason != "" {
				fmt.Printf("%s ended: %s\n", e.m.name, e.text(dir))
			}
		case <-limit:
			for _, m := range members {
				if m.running {
					m.cmd.Process.Kill()
				}
			}
			return
		}
	}
}
