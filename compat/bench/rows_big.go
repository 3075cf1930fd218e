package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// BigKeys is how many keys a big store has; each takes 0.4 KB of disk in every member.
var BigKeys = 10_000_000

// BigFile, unless it is empty, is a database file with BigKeys keys that is made if it
// is not there, and kept for other runs.
var BigFile string

// bigTurns is how often the puts into either store take turns.
const bigTurns = 3

// bigRow compares a large store with a small one: the rate of puts, and the time from
// a restart to the first read, after a clean stop and after a kill.
func bigRow() Row {
	return Row{
		Name: "big", Title: "100 clients put into millions of keys of 256 B beside 10 thousand, one member", Own: true, Apart: true,
		Metrics: []Metric{
			{Name: "keys", Unit: "", Higher: true},
			{Name: "small", Unit: "/s", Higher: true}, {Name: "big", Unit: "/s", Higher: true}, {Name: "kept", Unit: "%", Higher: true},
			{Name: "small cpu", Unit: "µs/op"}, {Name: "big cpu", Unit: "µs/op"},
			{Name: "restart", Unit: "s"}, {Name: "after kill", Unit: "s"}, {Name: "disk", Unit: "MiB"},
		},
		Round: func(ctx context.Context, base *target, d time.Duration) (map[string]float64, error) {
			dir := filepath.Join(base.dir, "big")
			small, err := newTargetOf(ctx, base.system, filepath.Join(dir, "small"), 1)
			defer small.close()
			if err != nil {
				return nil, err
			}
			if _, err := fillKeys(ctx, small.cluster.Members[0], 10_000); err != nil {
				return nil, err
			}
			big, err := newBigTarget(ctx, base.system, dir, BigKeys)
			defer big.close()
			if err != nil {
				return nil, err
			}
			var few, many outcome
			for range bigTurns {
				if err := few.more(putAmong(ctx, small, 10_000, d)); err != nil {
					return nil, err
				}
				if err := many.more(putAmong(ctx, big, BigKeys, d)); err != nil {
					return nil, err
				}
			}
			m := big.cluster.Members[0]
			status, err := m.Status(ctx)
			if err != nil {
				return nil, err
			}
			stopped, err := restart(ctx, m)
			if err != nil {
				return nil, err
			}
			m.Kill()
			killed, err := start(ctx, m)
			return map[string]float64{
				"keys": float64(BigKeys), "small": few.rate(), "big": many.rate(), "kept": 100 * many.rate() / few.rate(),
				"small cpu": few.cpuMicros(), "big cpu": many.cpuMicros(),
				"restart": stopped.Seconds(), "after kill": killed.Seconds(), "disk": float64(status.DbSize) / (1 << 20),
			}, err
		},
	}
}

// lostDiskRow takes a member of three away with its disk and puts an empty one in its
// place. What network and disk need at least is what a copy of the file takes, over
// loopback into a file that is synced once.
func lostDiskRow() Row {
	return Row{
		Name: "lost-disk", Title: "a member with an empty disk among three with millions of keys of 256 B: start → its first linearizable read", Own: true, Apart: true,
		Metrics: []Metric{
			{Name: "keys", Unit: "", Higher: true}, {Name: "back", Unit: "s"}, {Name: "copy", Unit: "s"}, {Name: "times", Unit: ""}, {Name: "file", Unit: "MiB"},
		},
		Round: func(ctx context.Context, base *target, _ time.Duration) (map[string]float64, error) {
			dir := filepath.Join(base.dir, "lost")
			t, err := newBigTarget(ctx, base.system, dir, BigKeys)
			defer t.close()
			if err != nil {
				return nil, err
			}
			if _, err := addEmpty(ctx, t.cluster, "second"); err != nil {
				return nil, err
			}
			plain, size, err := copyFile(databaseOf(t.cluster.Members[0]), filepath.Join(dir, "copy"))
			if err != nil {
				return nil, err
			}
			back, err := addEmpty(ctx, t.cluster, "third")
			return map[string]float64{
				"keys": float64(BigKeys), "back": back.Seconds(), "copy": plain.Seconds(), "times": back.Seconds() / plain.Seconds(), "file": float64(size) / (1 << 20),
			}, err
		},
	}
}

// more adds what another drive came to; its latencies are not in order any more.
func (o *outcome) more(p outcome, err error) error {
	o.took += p.took
	o.cpu += p.cpu
	o.latencies = append(o.latencies, p.latencies...)
	return err
}

func databaseOf(m *cluster.Member) string { return filepath.Join(m.DataDir(), "member", "snap", "db") }

func putAmong(ctx context.Context, t *target, keys int, d time.Duration) (outcome, error) {
	return drive(ctx, 100, d, t.cluster.CPU, func(ctx context.Context, client int, rng *rand.Rand) error {
		put := &pb.PutRequest{Key: millionKey(rng.IntN(keys)), Value: value(rng, valueSize)}
		_, err := pb.NewKVClient(t.conns[client]).Put(ctx, put)
		return err
	})
}

// newBigTarget starts one member with so many keys. It begins with a file that is made
// here and restored: to write them through the API would take many minutes.
func newBigTarget(ctx context.Context, sys cluster.System, dir string, keys int) (*target, error) {
	file := BigFile
	if file == "" || keys != BigKeys {
		file = filepath.Join(dir, "made.db")
		defer os.Remove(file)
	}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = makeDatabase(file, keys)
	}
	if err != nil {
		return &target{}, err
	}
	return newTargetWith(ctx, sys, cluster.Options{Members: 1, Dir: dir, Args: flags, Prepare: func(m *cluster.Member, initial string) error {
		tool := map[string]string{"etcd": "etcdutl", "kvd": "kvctl"}[sys.Name]
		args := []string{"snapshot", "restore", file, "--skip-hash-check", "--data-dir", m.DataDir(), "--name", m.Name,
			"--initial-cluster", initial, "--initial-cluster-token", cluster.Token, "--initial-advertise-peer-urls", m.PeerURL}
		if sys.Name == "kvd" {
			args = append(args, "--bump-revision=0")
		}
		out, err := exec.CommandContext(ctx, filepath.Join(filepath.Dir(sys.Binary), tool), args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", tool, err, out)
		}
		syscall.Sync() // what was only written may not slow down what is measured
		return nil
	}})
}

// makeDatabase writes a database file with so many keys, as a member would, unless
// there is a file.
func makeDatabase(path string, keys int) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	e, err := engine.OpenBolt(path, engine.BoltOptions{NoSync: true})
	if err != nil {
		return err
	}
	s, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: e})
	if err != nil {
		return errors.Join(err, e.Close())
	}
	const batch = 100
	rng := rand.New(rand.NewPCG(1, 5))
	for n := range keys / batch {
		txn := s.Begin()
		for i := range batch {
			txn.Put(millionKey(n*batch+i), value(rng, valueSize), 0)
		}
		txn.End()
		s.Seal(api.Index(n+1), 1)
		s.Publish()
	}
	return errors.Join(s.Flush(), s.Close(), e.Close())
}

// addEmpty adds a member without data and returns how long it takes from its start to
// its first linearizable read.
func addEmpty(ctx context.Context, c *cluster.Cluster, name string) (time.Duration, error) {
	m, err := c.Place(name)
	if err != nil {
		return 0, err
	}
	conn, err := c.Members[0].Dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	add := &pb.MemberAddRequest{PeerURLs: []string{m.PeerURL}}
	err = until(ctx, func() bool { // the others must have been connected for a while
		_, err := pb.NewClusterClient(conn).MemberAdd(ctx, add)
		return err == nil
	})
	if err != nil {
		return 0, err
	}
	var initial []string
	for _, o := range append(c.Members, m) {
		initial = append(initial, o.Name+"="+o.PeerURL)
	}
	began := time.Now()
	if err := c.Join(m, strings.Join(initial, ","), "existing", append(flags, "--unsafe-no-fsync=false")...); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err = m.Ready(ctx)
	return time.Since(began), err
}

// copyFile sends a file over loopback into another one, which is removed again.
func copyFile(from, to string) (took time.Duration, size int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(to)
	defer out.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = io.Copy(conn, in)
			err = errors.Join(err, conn.Close())
		}
		if err != nil {
			l.Close() // nobody else comes
		}
		sent <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	size, err = io.Copy(out, conn)
	err = errors.Join(err, <-sent, out.Sync())
	return time.Since(began), size, err
}
