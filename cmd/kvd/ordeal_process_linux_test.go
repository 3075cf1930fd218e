package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/server/certtest"
)

// attempt is one write of a key that is written once only.
type attempt struct {
	key      string
	revision int64 // 0: not acknowledged
	refused  bool  // surely not applied
}

// ordealLoad writes without a pause through all members, and remembers what came
// of each write. A writer goes to another member when one fails.
type ordealLoad struct {
	stop chan struct{}
	wait sync.WaitGroup
	mu   struct {
		sync.Mutex
		attempts []attempt
		acked    int
		other    map[string]int // outcomes that are not known, by their text
	}
}

func startOrdealLoad(writers int, conns [][]*grpc.ClientConn) *ordealLoad {
	l := &ordealLoad{stop: make(chan struct{})}
	l.mu.other = map[string]int{}
	for i := range writers {
		l.wait.Go(func() {
			at := i
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				a := attempt{key: fmt.Sprintf("load/%d/%06d", i, n)}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				resp, err := pb.NewKVClient(conns[i][at%len(conns[i])]).Put(ctx, &pb.PutRequest{Key: []byte(a.key), Value: []byte(a.key)})
				cancel()
				l.mu.Lock()
				switch {
				case err == nil:
					a.revision = resp.Header.Revision
					l.mu.acked++
				default:
					a.refused = status.Code(err) == codes.ResourceExhausted
					l.mu.other[status.Convert(err).Message()]++
					at++
				}
				l.mu.attempts = append(l.mu.attempts, a)
				l.mu.Unlock()
				// A busy loop of refusals would prove nothing more.
				time.Sleep(time.Millisecond)
			}
		})
	}
	return l
}

func (l *ordealLoad) acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.acked
}

// ordeal is a cluster under TLS with users who are known by their certificates.
type ordeal struct {
	*fleet
	cas         []*certtest.Authority // that clients trust
	root, alice wallet
	load        *ordealLoad
}

// wallet holds a client's certificate of the moment: connections show it each
// time that they are made.
type wallet struct{ atomic.Pointer[certtest.Pair] }

func (w *wallet) fill(ca *certtest.Authority, name string) {
	pair := ca.Issue(name)
	w.Store(&pair)
}

// goesOn waits until writes are acknowledged again: 50 more.
func (o *ordeal) goesOn(when string) {
	o.t.Helper()
	o.until(when+": writes go on", func() error {
		if o.load.acked() == 0 {
			return errors.New("nothing was acknowledged")
		}
		return nil
	})
	before := o.load.acked()
	o.until(when+": writes go on", func() error {
		if n := o.load.acked(); n < before+50 {
			return fmt.Errorf("%d acknowledged", n-before)
		}
		return nil
	})
	o.t.Logf("%s: %d writes acknowledged", when, o.load.acked())
}

// until repeats do until it succeeds.
func (o *ordeal) until(what string, do func() error) {
	o.t.Helper()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(20 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (o *ordeal) admin(i int) *grpc.ClientConn { return o.dial(i, o.as(&o.root)) }

func (o *ordeal) as(w *wallet) *tls.Config {
	cfg := clientTLS(o.t, *w.Load(), o.cas...)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		now := w.Load()
		pair, err := tls.X509KeyPair(now.Cert, now.Key)
		return &pair, err
	}
	return cfg
}

// ready waits until a member answers a linearizable read.
func (o *ordeal) ready(i int) {
	o.t.Helper()
	kv := pb.NewKVClient(o.admin(i))
	o.until(fmt.Sprintf("member %d serves", i), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("load/")}, grpc.WaitForReady(true))
		return err
	})
}

// TestOrdeal: three members under TLS, with users, live through the rotation of
// all certificates, the replacement of a member, a full disk and the alarm of the
// quota, while clients write. Every write that was acknowledged is on every
// member in the end, at its revision, and none that was refused.
func TestOrdeal(t *testing.T) {
	o := &ordeal{fleet: planFleet(t, "--quota-backend-bytes=50331648", "--heartbeat-interval=50", "--election-timeout=500")}
	o.cas = []*certtest.Authority{o.ca}
	const small = 1 // the member whose disk will be full
	disk := smallDisk(t, 256<<20)
	o.sites[small].dir = filepath.Join(disk, "data")
	for i := range o.sites {
		o.start(i)
	}
	o.root.fill(o.ca, "root")
	o.alice.fill(o.ca, "alice")
	o.users()

	young := certtest.New(t, "young")
	o.cas = append(o.cas, young)
	var conns [][]*grpc.ClientConn
	for range 6 {
		conns = append(conns, []*grpc.ClientConn{o.dial(0, o.as(&o.alice)), o.dial(1, o.as(&o.alice)), o.dial(2, o.as(&o.alice))})
	}
	o.load = startOrdealLoad(len(conns), conns)
	o.goesOn("quiet")
	o.rotate(young)
	o.replace(2)
	o.fillDisk(small, disk)
	o.fillQuota()
	o.judge()
}

// smallDisk is a file system of its own.
func smallDisk(t *testing.T, size int) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no file system can be mounted here, so none can be full: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// users makes root and alice, who may write the load's keys, and turns auth on.
func (o *ordeal) users() {
	o.t.Helper()
	o.ready(0)
	ctx, admin := limited(o.t), pb.NewAuthClient(o.admin(0))
	mayWrite := &authpb.Permission{PermType: authpb.READWRITE, Key: []byte("load/"), RangeEnd: []byte("load0")}
	none := &authpb.UserAddOptions{NoPassword: true}
	for _, do := range []func() error{
		func() error {
			_, err := admin.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Options: none})
			return err
		},
		func() error {
			_, err := admin.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "alice", Options: none})
			return err
		},
		func() error { _, err := admin.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"}); return err },
		func() error { _, err := admin.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "load"}); return err },
		func() error {
			_, err := admin.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "load", Perm: mayWrite})
			return err
		},
		func() error {
			_, err := admin.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
			return err
		},
		func() error {
			_, err := admin.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "load"})
			return err
		},
		func() error { _, err := admin.AuthEnable(ctx, &pb.AuthEnableRequest{}); return err },
	} {
		if err := do(); err != nil {
			o.t.Fatal(err)
		}
	}
	stranger := o.dial(0, clientTLS(o.t, o.ca.Issue("mallory"), o.cas...))
	if err := putOver(stranger, "load/x", true); status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.FailedPrecondition {
		o.t.Errorf("a stranger's write: %v", err)
	}
}

// rotate replaces the members' pairs and their CA. Each step is followed by the
// death of a member, which must find the others with what the files then hold.
func (o *ordeal) rotate(young *certtest.Authority) {
	o.t.Helper()
	step := func(when string) {
		i := o.follower(o.admin(0))
		o.procs[i].signal(syscall.SIGKILL)
		o.procs[i].code()
		o.start(i)
		o.ready(i)
		o.goesOn(when)
	}
	o.ca.Issue("member", "127.0.0.1").Write(o.t, o.certs, "member")
	step("new pairs")
	certtest.Write(o.t, o.certs, "ca.crt", append(o.ca.PEM(), young.PEM()...))
	young.Issue("member", "127.0.0.1").Write(o.t, o.certs, "member")
	step("pairs of a new CA")
	o.root.fill(young, "root")
	o.alice.fill(young, "alice")
	certtest.Write(o.t, o.certs, "ca.crt", young.PEM())
	certtest.Write(o.t, o.certs, "crl", young.Revoke())
	step("the new CA alone")
}

// replace removes a member, wipes it and adds it anew.
func (o *ordeal) replace(i int) {
	o.t.Helper()
	cluster := pb.NewClusterClient(o.admin(0))
	members, err := cluster.MemberList(limited(o.t), &pb.MemberListRequest{})
	if err != nil {
		o.t.Fatal(err)
	}
	for _, m := range members.Members {
		if m.Name == fmt.Sprint("m", i) {
			steady(o.t, func(ctx context.Context) error {
				_, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: m.ID})
				return err
			})
		}
	}
	expect(o.t, "a removed member", o.procs[i], exitRemoved, "was removed from the cluster")
	if err := os.RemoveAll(o.sites[i].dir); err != nil {
		o.t.Fatal(err)
	}
	steady(o.t, func(ctx context.Context) error {
		_, err := cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"https://" + o.sites[i].peer}})
		return err
	})
	o.start(i, "--initial-cluster-state=existing")
	o.ready(i)
	o.goesOn("a member replaced")
}

// fillDisk leaves a member no space, until it ends and says so; then it gets its
// space back.
func (o *ordeal) fillDisk(i int, disk string) {
	o.t.Helper()
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		o.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	fill := func() {
		for err := error(nil); err == nil; {
			_, err = f.Write(block)
		}
	}
	ended := func() bool {
		select {
		case <-o.procs[i].done:
			return true
		default:
			return false
		}
	}
	fill()
	// The database file grows by 16 MiB: what is written in there may have space
	// already. These values need more.
	kv, value := pb.NewKVClient(o.admin(0)), make([]byte, 1<<20)
	for n := range 20 {
		if _, err := kv.Put(limited(o.t), &pb.PutRequest{Key: fmt.Append(nil, "fill/disk/", n), Value: value}); err != nil {
			o.t.Fatal(err)
		}
	}
	o.until("a member without space ends", func() error {
		fill()
		if !ended() {
			return errors.New("it goes on")
		}
		return nil
	})
	expect(o.t, "a member without space", o.procs[i], exitNoSpace, "no space left on device")
	o.goesOn("a disk full")
	if err := os.Remove(ballast); err != nil {
		o.t.Fatal(err)
	}
	f.Close() // now the space is free
	o.start(i)
	o.ready(i)
	o.goesOn("a disk with space again")
}

// fillQuota writes until the quota's alarm refuses everybody, and then makes room
// by deleting, which is allowed: the alarm clears by itself.
func (o *ordeal) fillQuota() {
	o.t.Helper()
	conn := o.admin(0)
	kv, maintenance := pb.NewKVClient(conn), pb.NewMaintenanceClient(conn)
	alarms := func() (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		resp, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		return len(resp.GetAlarms()), err
	}
	value := make([]byte, 1<<20)
	o.until("the quota is reached", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "fill/", time.Now().UnixNano()), Value: value})
		if err != nil && strings.Contains(err.Error(), "database space exceeded") {
			return nil
		}
		return fmt.Errorf("a put ends with %v", err)
	})
	if n, err := alarms(); err != nil || n == 0 {
		o.t.Errorf("no alarm, %v", err)
	}
	resp, err := kv.DeleteRange(limited(o.t), &pb.DeleteRangeRequest{Key: []byte("fill/"), RangeEnd: []byte("fill0")})
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := kv.Compact(limited(o.t), &pb.CompactionRequest{Revision: resp.Header.Revision, Physical: true}); err != nil {
		o.t.Fatal(err)
	}
	o.until("the alarm clears by itself", func() error {
		n, err := alarms()
		if err == nil && n > 0 {
			err = fmt.Errorf("%d alarms", n)
		}
		return err
	})
	o.goesOn("an alarm raised and cleared")
}

// judge ends the load and compares every member with what clients were told.
func (o *ordeal) judge() {
	o.t.Helper()
	close(o.load.stop)
	o.load.wait.Wait()
	o.load.mu.Lock()
	defer o.load.mu.Unlock()
	last := int64(0)
	var hash uint32
	for i := range o.sites {
		o.ready(i) // and with a linearizable read everything that was acknowledged
		conn := o.admin(i)
		resp, err := pb.NewKVClient(conn).Range(limited(o.t), &pb.RangeRequest{Key: []byte("load/"), RangeEnd: []byte("load0"), Serializable: true},
			grpc.MaxCallRecvMsgSize(1<<30))
		if err != nil {
			o.t.Fatal(err)
		}
		o.compare(i, resp)
		if last == 0 {
			last = resp.Header.Revision
		}
		sum, err := pb.NewMaintenanceClient(conn).HashKV(limited(o.t), &pb.HashKVRequest{Revision: last})
		if err != nil {
			o.t.Fatal(err)
		}
		if i > 0 && sum.Hash != hash {
			o.t.Errorf("at revision %d member %d has hash %x, member 0 has %x", last, i, sum.Hash, hash)
		}
		hash = sum.Hash
	}
	o.t.Logf("%d writes, %d acknowledged; others ended with %v; hash %x at revision %d", len(o.load.mu.attempts), o.load.mu.acked, o.load.mu.other, hash, last)
	for i, p := range o.procs {
		p.signal(syscall.SIGTERM)
		if code := p.code(); code != exitOK {
			o.t.Errorf("member %d ends with %d", i, code)
		}
		o.prove(i)
	}
}

func (o *ordeal) compare(i int, resp *pb.RangeResponse) {
	o.t.Helper()
	found := map[string]int64{}
	for _, kv := range resp.Kvs {
		found[string(kv.Key)] = kv.ModRevision
		if string(kv.Value) != string(kv.Key) || kv.Version != 1 {
			o.t.Errorf("member %d: %v was written once, with its key as value", i, kv)
		}
	}
	for _, a := range o.load.mu.attempts {
		switch rev, ok := found[a.key]; {
		case a.revision > 0 && rev != a.revision:
			o.t.Fatalf("member %d: LOST: %s was acknowledged at revision %d, is at %d", i, a.key, a.revision, rev)
		case a.refused && ok:
			o.t.Fatalf("member %d: %s was refused and is there", i, a.key)
		}
	}
}

// prove does what kvcheck does with a stopped member's database.
func (o *ordeal) prove(i int) {
	o.t.Helper()
	e, err := engine.OpenBolt(filepath.Join(o.sites[i].dir, "member", "snap", "db"), engine.BoltOptions{ReadOnly: true})
	if err != nil {
		o.t.Fatal(err)
	}
	defer e.Close()
	store, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: e})
	if err != nil {
		o.t.Fatal(err)
	}
	defer store.Close()
	for _, problem := range store.Check() {
		o.t.Errorf("member %d: %v", i, problem)
	}
}
