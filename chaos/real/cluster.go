//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// seats is how many members a world has room for: three or five, and two more
// that may join.
const seats = 7

// world is the network: a switch, and one namespace for each seat. It lives as
// long as the sandbox, and serves one cluster after the other.
type world struct {
	dir     string
	owner   string // how the names of cgroups begin
	clients netip.Addr
	home    *os.File // the harness's own device
	ns      [seats]*netns
	net     *Switch
}

// address of seat n, from 1; the clients' is 100.
func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}) }

func newWorld(dir, owner string, seed uint64) (w *world, err error) {
	w = &world{dir: dir, owner: owner, clients: address(100), net: newSwitch(seed)}
	if w.home, err = openTun(w.clients); err != nil {
		return nil, err
	}
	w.net.Plug(w.clients, w.home)
	for n := range w.ns {
		if err := w.wire(n + 1); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// wire gives a seat a new namespace. What the kernel still had to send from the
// old one is gone.
func (w *world) wire(n int) (err error) {
	if w.ns[n-1], err = newNetns(address(n)); err == nil {
		w.net.Plug(address(n), w.ns[n-1].tun)
	}
	return err
}

func (w *world) close() {
	w.home.Close()
	for _, ns := range w.ns {
		ns.close()
	}
	w.net.pumps.Wait()
}

// Cluster is the members, and how the harness talks to them.
type Cluster struct {
	*world
	dir     string
	begin   time.Time
	args    []string
	rand    *rand.Rand // of the nemesis
	certs   *authority // nil: nothing is encrypted
	objects bool       // members serve the Kubernetes API, too
	user    string     // whose name clients use, and its password; empty: nobody's

	struck atomic.Int64 // the time of the present fault's first strike; 0: none yet

	mu      sync.Mutex // guards what follows
	Members []*Member
	former  []*Member // that were removed
	out     io.Writer // nil: nobody wants to know
	conns   map[string]*grpc.ClientConn
}

// cluster is one without members yet.
func (w *world) cluster(dir string, r *rand.Rand, election time.Duration, out io.Writer) *Cluster {
	return &Cluster{
		world: w, dir: dir, begin: time.Now(), rand: r, out: out, conns: map[string]*grpc.ClientConn{},
		args: []string{fmt.Sprint("--election-timeout=", election.Milliseconds()), fmt.Sprint("--heartbeat-interval=", (election / 10).Milliseconds())},
	}
}

// now is the time of the history.
func (c *Cluster) now() time.Duration { return time.Since(c.begin) }

// strike notes when a fault first did something to a process: before, it may have
// looked for a leader, and writes that were served meanwhile say nothing of it.
func (c *Cluster) strike() { c.struck.CompareAndSwap(0, int64(c.now())) }

// note tells what happens, if somebody wants to know.
func (c *Cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out != nil {
		fmt.Fprintf(c.out, "%9.3fs  %s\n", c.now().Seconds(), fmt.Sprintf(format, args...))
	}
}

// newMember takes a seat for a member of the cluster.
func (c *Cluster) newMember(n int, binary string, diskBytes int64) (*Member, error) {
	m, err := c.seat(n, binary, diskBytes)
	if err == nil {
		c.mu.Lock()
		c.Members = append(c.Members, m)
		c.mu.Unlock()
	}
	return m, err
}

// seat gives a process its place, whether it is a member or not.
func (c *Cluster) seat(n int, binary string, diskBytes int64) (*Member, error) {
	disk, err := newDisk(filepath.Join(c.dir, fmt.Sprint("m", n)), diskBytes)
	if err != nil {
		return nil, err
	}
	if c.certs != nil {
		if err := c.certs.issue(n, good); err != nil {
			return nil, err
		}
	}
	return &Member{c: c, seat: n, Name: fmt.Sprint("m", n), Addr: address(n), Disk: disk, binary: binary, joins: "new"}, nil
}

// initial is --initial-cluster for a member: itself and all others.
func (c *Cluster) initial(own *Member) string {
	all := c.members()
	if !slices.Contains(all, own) {
		all = append(all, own)
	}
	var parts []string
	for _, m := range all {
		parts = append(parts, m.Name+"="+m.peerURL())
	}
	return strings.Join(parts, ",")
}

func (c *Cluster) members() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Member(nil), c.Members...)
}

// retire takes a member off the list.
func (c *Cluster) retire(m *Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Members = slices.DeleteFunc(c.Members, func(o *Member) bool { return o == m })
	c.former = append(c.former, m)
}

// everybody is all members that there ever were.
func (c *Cluster) everybody() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Concat(c.Members, c.former)
}

func (c *Cluster) endpoints() (out []string) {
	for _, m := range c.members() {
		out = append(out, m.endpoint())
	}
	return out
}

// dial returns a plain connection to an address, which the cluster keeps. Nothing
// retries on it.
func (c *Cluster) dial(target string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.conns[target]; conn != nil {
		return conn, nil
	}
	secret := insecure.NewCredentials()
	if c.certs != nil {
		secret = credentials.NewTLS(c.certs.client)
	}
	conn, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(secret), grpc.WithDisableRetry(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.3, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second}))
	if err == nil {
		c.conns[target] = conn
	}
	return conn, err
}

// asked bounds a question of the harness to one member.
const asked = 2 * time.Second

// status asks a member for its status.
func (m *Member) status() (*pb.StatusResponse, error) {
	if m.down() {
		return nil, errDown
	}
	conn, err := m.c.dial(m.endpoint())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), asked)
	defer cancel()
	return pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
}

// statuses asks all members at once. The error names one that is down or does not
// answer.
func (c *Cluster) statuses() (map[*Member]*pb.StatusResponse, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	all, failed := map[*Member]*pb.StatusResponse{}, error(nil)
	for _, m := range c.members() {
		wg.Go(func() {
			st, err := m.status()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = fmt.Errorf("%s: %w", m.Name, err)
				return
			}
			all[m] = st
		})
	}
	wg.Wait()
	return all, failed
}

var errNoLeader = errors.New("nobody leads")

// leader returns the member that most recently began to lead.
func (c *Cluster) leader() (*Member, error) {
	all, err := c.statuses()
	var found *Member
	term := uint64(0)
	for m, st := range all {
		if st.Leader == st.Header.MemberId && st.RaftTerm > term {
			found, term = m, st.RaftTerm
		}
	}
	if found == nil {
		return nil, errors.Join(errNoLeader, err)
	}
	return found, nil
}

// awaitLeader waits until somebody leads.
func (c *Cluster) awaitLeader(limit time.Duration) (m *Member, err error) {
	err = within(limit, func() (err error) { m, err = c.leader(); return err })
	return m, err
}

// follower is a member that does not lead, by chance.
func (c *Cluster) follower() (*Member, error) {
	l, err := c.awaitLeader(patience)
	if err != nil {
		return nil, err
	}
	var rest []*Member
	for _, m := range c.members() {
		if m != l && !m.down() {
			rest = append(rest, m)
		}
	}
	if len(rest) == 0 {
		return nil, errors.New("nobody follows")
	}
	return rest[c.rand.IntN(len(rest))], nil
}

// some is any member that runs.
func (c *Cluster) some() *Member {
	all := c.members()
	return all[c.rand.IntN(len(all))]
}

// patience is how long the harness waits for what must come in the end.
const patience = 60 * time.Second

// within repeats f until it has no error.
func within(limit time.Duration, f func() error) error {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil || time.Since(begin) > limit {
			return err
		}
	}
}

// startAll starts every member that is down, and waits until all are equal.
func (c *Cluster) startAll() error {
	for _, m := range c.members() {
		if m.down() {
			if err := m.start(); err != nil {
				return err
			}
		}
	}
	return c.settle(patience)
}

// settle waits until all members follow one leader and have applied the same.
func (c *Cluster) settle(limit time.Duration) error {
	err := within(limit, c.equal)
	if err != nil {
		return fmt.Errorf("O9: %v after faults ended: %w", limit, err)
	}
	return nil
}

// equal says what keeps the members from being equal.
func (c *Cluster) equal() error {
	all, err := c.statuses()
	if err != nil {
		return err
	}
	var first *Member
	for m, st := range all {
		m.ID = st.Header.MemberId
		if first == nil {
			first = m
		}
		of := all[first]
		if st.Leader == 0 || st.Leader != of.Leader || st.RaftTerm != of.RaftTerm || st.RaftAppliedIndex != of.RaftAppliedIndex || st.RaftAppliedIndex != st.RaftIndex {
			return fmt.Errorf("%s: leader %x, term %d, applied %d of %d; %s: leader %x, term %d, applied %d", m.Name, st.Leader, st.RaftTerm,
				st.RaftAppliedIndex, st.RaftIndex, first.Name, of.Leader, of.RaftTerm, of.RaftAppliedIndex)
		}
	}
	return nil
}

// close ends all processes and disks.
func (c *Cluster) close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	for _, m := range c.everybody() {
		if !m.down() {
			m.expect("the end of the run")
			m.signal(unix.SIGKILL) // one that ends at the same time is no error
			errs = append(errs, m.wait(10*time.Second))
		}
		errs = append(errs, m.Disk.close())
	}
	return errors.Join(errs...)
}
