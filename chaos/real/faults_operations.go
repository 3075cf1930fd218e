//go:build linux

package real

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
)

var operationsFaults = []*Fault{
	{Name: "certificates", Row: 53, About: "certificates are renewed, expired, for another address, and of another authority", Logs: []string{"tls:", "x509:", "certificate"}, Setup: encrypt, Inject: certificates},
	{Name: "rights-change", Row: 54, About: "users are switched on and off, and a role is taken away", Times: 2, Setup: asRoot, Inject: rightsChange},
	{Name: upgradeName, Row: 55, About: "members change to another build and back, one after the other", Times: 2, Setup: olderBuild, Inject: upgrade},
	{Name: "backup", Row: 56, About: "a backup under load becomes a cluster that equals its revision; a damaged one is refused", Times: 2, Inject: backup},
}

func encrypt(r *Run) (err error) {
	r.certs, err = newAuthority(filepath.Join(r.dir, "certs"))
	for _, m := range r.members() {
		err = errors.Join(err, r.certs.issue(m.seat, good))
	}
	return err
}

// certificates gives one member a certificate that nobody may accept and breaks
// its connections, then good ones to all, without a restart.
func certificates(r *Run) error {
	lives := r.lives()
	m, what := r.some(), []fitness{expired, nameless, stranger}[r.rand.IntN(3)]
	if err := r.certs.issue(m.seat, what); err != nil {
		return err
	}
	err := within(patience, func() error {
		if _, err := r.certs.shown(m, r.certs.client); err == nil {
			return fmt.Errorf("O11: %s still shows what it had", m.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, o := range append(r.peers(m), r.clients) {
		r.net.SetBoth(m.Addr, o, Link{Reset: true})
	}
	time.Sleep(100 * time.Millisecond)
	r.net.Heal()
	if err := r.serves(); err != nil {
		return err
	}
	if err := r.plainRefused(); err != nil {
		return err
	}
	for _, o := range r.shuffled() {
		if err := r.certs.issue(o.seat, good); err != nil {
			return err
		}
		want := r.certs.serial + 1
		err := within(patience, func() error {
			if got, err := r.certs.shown(o, r.certs.client); err != nil || got != want {
				return fmt.Errorf("O9: %s shows certificate %d, not %d: %w", o.Name, got, want, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !slices.Equal(lives, r.lives()) {
		return errors.New("O12: a member was started anew")
	}
	return nil
}

// lives tells how often members have started.
func (r *Run) lives() (n []int) {
	for _, m := range r.members() {
		m.mu.Lock()
		n = append(n, m.life)
		m.mu.Unlock()
	}
	return n
}

// plainRefused demands that nobody is served without a good certificate.
func (r *Run) plainRefused() error {
	m := r.some()
	if _, err := r.certs.shown(m, &tls.Config{RootCAs: r.certs.client.RootCAs}); err == nil {
		return fmt.Errorf("O12: %s serves a client without a certificate", m.Name)
	}
	alien := &authority{dir: r.certs.dir, key: r.certs.key, cert: r.certs.cert}
	if err := alien.issue(90, stranger); err != nil {
		return err
	}
	own, err := tls.LoadX509KeyPair(alien.path("90.pem"), alien.path("90.key"))
	if err != nil {
		return err
	}
	if _, err := r.certs.shown(m, &tls.Config{RootCAs: r.certs.client.RootCAs, Certificates: []tls.Certificate{own}}); err == nil {
		return fmt.Errorf("O12: %s serves a client of another authority", m.Name)
	}
	return nil
}

func asRoot(r *Run) error { r.user = "root"; return nil }

// guest is the user whose rights change, and what they are to.
const (
	guest    = "guest"
	guestKey = "guest/key"
)

// rightsChange switches authentication on under load, which goes on as root, and
// demands that every member decides alike about a guest whose role comes and goes.
func rightsChange(r *Run) error {
	auth := r.mine.cl.Auth()
	steps := []func(context.Context) error{
		func(ctx context.Context) error { return auth.AddUser(ctx, "root", "root") },
		func(ctx context.Context) error { return auth.AddRole(ctx, "root") },
		func(ctx context.Context) error { return auth.GrantRole(ctx, "root", "root") },
		func(ctx context.Context) error { return auth.AddUser(ctx, guest, guest) },
		func(ctx context.Context) error { return auth.AddRole(ctx, guest) },
		func(ctx context.Context) error {
			return auth.Grant(ctx, guest, client.Permission{Access: client.MayReadWrite, Keys: client.Key(guestKey)})
		},
		auth.Enable,
	}
	for _, step := range steps {
		if err := r.insist(step); err != nil {
			return err
		}
	}
	for range 3 {
		if err := r.insist(func(ctx context.Context) error { return auth.GrantRole(ctx, guest, guest) }); err != nil {
			return err
		}
		if err := r.guestMay(codes.OK); err != nil {
			return err
		}
		if err := r.insist(func(ctx context.Context) error { return auth.RevokeRole(ctx, guest, guest) }); err != nil {
			return err
		}
		if err := r.guestMay(codes.PermissionDenied); err != nil {
			return err
		}
	}
	return r.insist(auth.Disable)
}

// insist repeats a change of users. One that was made by an attempt whose answer
// was lost, or long ago, is refused as such.
func (r *Run) insist(f func(context.Context) error) error {
	err := within(patience, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		err := f(ctx)
		if status.Code(wordsOf(err)) == codes.FailedPrecondition {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("O9: users cannot be changed: %w", err)
	}
	return nil
}

// guestMay demands that soon each member answers the guest so, in what it decides
// alone and in what all decide.
func (r *Run) guestMay(want codes.Code) error {
	for _, m := range r.shuffled() {
		cl, err := client.New(client.Config{Endpoints: []string{m.endpoint()}, Timeout: asked, Username: guest, Password: guest})
		if err != nil {
			return err
		}
		g := &caller{traffic: r.load, n: r.mine.n, cl: cl}
		err = within(patience, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), asked)
			defer cancel()
			_, err := cl.List(ctx, client.Key(guestKey), client.Serializable())
			if got := status.Code(wordsOf(err)); got != want {
				return fmt.Errorf("O5: %s answers the guest with %v, not %v: %w", m.Name, got, want, err)
			}
			return nil
		})
		if err == nil {
			if op := g.do("etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte(guestKey), Value: r.mine.tag(0)}); op.Outcome == history.OK && want != codes.OK {
				err = fmt.Errorf("O5: %s lets the guest write, and not read", m.Name)
			}
		}
		if err = errors.Join(err, cl.Close()); err != nil {
			return err
		}
	}
	return nil
}

// olderBuild lets all members begin with an earlier commit's program.
func olderBuild(r *Run) error {
	if r.Older == "" {
		return fmt.Errorf("%w: there is no earlier build", errSkipped)
	}
	for _, m := range r.members() {
		m.binary = r.Older
	}
	return nil
}

// upgrade stops one member after the other and starts it with the other build. For
// a while two builds work together.
func upgrade(r *Run) error {
	all := r.shuffled()
	to := r.Binary
	if all[0].binary == to {
		to = r.Older
	}
	for _, m := range all {
		if err := m.stop(); err != nil {
			return err
		}
		m.binary = to
		if err := m.start(); err != nil {
			return err
		}
		if err := within(patience, r.together); err != nil {
			return fmt.Errorf("O9: with two builds: %w", err)
		}
		r.pause(0, r.Election)
	}
	return r.serves()
}

// backup takes a snapshot of a member, makes a cluster of one of it, and compares
// that with what the cluster had at the snapshot's revision.
func backup(r *Run) error {
	name := filepath.Join(r.dir, "backup.db")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := r.mine.cl.Maintenance().Snapshot(ctx, r.some().endpoint(), f); err != nil {
		return fmt.Errorf("O9: a snapshot under load: %w", err)
	}
	m, err := r.seat(seats, r.Binary, r.diskBytes())
	if err != nil {
		return err
	}
	defer r.retire(m) // which ends it with the run
	done, err := m.restore(ctx, f)
	if err != nil {
		return fmt.Errorf("O5: restore: %w", err)
	}
	m.expect("it is no member")
	if err := m.start("--initial-cluster="+m.Name+"="+m.peerURL(), "--initial-cluster-token="+restored); err != nil {
		return err
	}
	m.expect("it is no member")
	var own, live *pb.RangeResponse
	err = within(patience, func() (err error) { own, err = r.all(m, int64(done.Revision)); return err })
	if err == nil {
		err = within(patience, func() (err error) { live, err = r.all(r.some(), int64(done.Revision)); return err })
	}
	if err == nil && !slices.EqualFunc(own.Kvs, live.Kvs, func(a, b *mvccpb.KeyValue) bool { return proto.Equal(a, b) }) {
		err = fmt.Errorf("O5: the restored cluster differs at revision %d: %d keys, %d in the cluster", done.Revision, len(own.Kvs), len(live.Kvs))
	}
	err = errors.Join(err, m.kill("it is no member"), os.RemoveAll(m.dataDir()))
	if err != nil {
		return err
	}
	if err := (spot{name, r.rand.Int64N(done.size), 1}).change(func(b []byte) { b[0] ^= 1 << r.rand.IntN(8) }); err != nil {
		return err
	}
	if _, err := m.restore(ctx, f); err == nil {
		return errors.New("O11: a damaged backup was restored")
	}
	return m.Disk.close()
}

// all is everything that a member has at a revision.
func (r *Run) all(m *Member, rev int64) (resp *pb.RangeResponse, err error) {
	err = r.admin(m, func(ctx context.Context, _ pb.ClusterClient, _ pb.MaintenanceClient, kv pb.KVClient) (err error) {
		resp, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev})
		return err
	})
	return resp, err
}

// restored is the token of clusters that are made of backups.
const restored = "restored"

type restoration struct {
	server.Restored
	size int64
}

// restore makes a member's directory from a snapshot, as kvctl does.
func (m *Member) restore(ctx context.Context, f *os.File) (out restoration, err error) {
	st, err := f.Stat()
	if err != nil {
		return out, err
	}
	out.size = st.Size()
	peers, err := server.ParseURLs(m.peerURL())
	if err != nil {
		return out, err
	}
	cfg := server.DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.InitialCluster, cfg.ClusterToken, cfg.AdvertisePeerURLs = m.Name, m.dataDir(), m.Name+"="+m.peerURL(), restored, peers
	cfg.Seed = m.c.rand.Uint64()
	cfg.Clock, cfg.FS, cfg.Logger = clock.System(), vfs.OS(), slog.New(slog.DiscardHandler)
	cfg.Complete()
	job := server.Restore{Config: cfg, Snapshot: f, Size: out.size}
	out.Restored, err = job.Run(ctx)
	return out, err
}
