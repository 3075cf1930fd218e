package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// diskMetrics are about the log's files and the database's.
type diskMetrics struct {
	walSync  prometheus.Histogram
	walWrite prometheus.Histogram
	walBytes prometheus.Gauge // etcd's type
	commit   prometheus.Histogram

	defrag         prometheus.Histogram
	defragInflight prometheus.Gauge
	snapshot       prometheus.Histogram
	hash, hashKV   prometheus.Histogram
}

func newDiskMetrics(k maker) diskMetrics {
	return diskMetrics{
		walSync:  k.histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", diskBuckets),
		walWrite: k.histogram("etcd_disk_wal_write_duration_seconds", "How long writes to the log's files took.", diskBuckets),
		walBytes: k.gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL."),
		commit:   k.histogram("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", diskBuckets),

		defrag:         k.histogram("etcd_disk_backend_defrag_duration_seconds", "How long rewrites of the database file took; nobody waits for them.", prometheus.ExponentialBuckets(.1, 2, 13)),
		defragInflight: k.gauge("etcd_disk_defrag_inflight", "1 while the database file is being rewritten."),
		snapshot:       k.histogram("etcd_disk_backend_snapshot_duration_seconds", "How long sending a snapshot to a client took.", prometheus.ExponentialBuckets(.01, 2, 17)),
		hash:           k.histogram("etcd_mvcc_hash_duration_seconds", "How long hashing the whole state took.", hashBuckets),
		hashKV:         k.histogram("etcd_mvcc_hash_rev_duration_seconds", "How long hashing the history up to a revision took.", hashBuckets),
	}
}

// timed observes how long something takes that begins now; call the result at
// its end.
func (m *metrics) timed(h prometheus.Observer) (done func()) {
	begin := m.clock.Now()
	return func() { h.Observe(m.clock.Now().Sub(begin).Seconds()) }
}

// timedFS returns fs with the log's writes and syncs measured.
func (m *metrics) timedFS(fs vfs.FS) vfs.FS { return timedFS{fs, m} }

type timedFS struct {
	vfs.FS
	m *metrics
}

func (t timedFS) Create(name string) (vfs.File, error) { return t.file(t.FS.Create(name)) }
func (t timedFS) Open(name string) (vfs.File, error)   { return t.file(t.FS.Open(name)) }

func (t timedFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return timedFile{f, t.m}, nil
}

type timedFile struct {
	vfs.File
	m *metrics
}

func (f timedFile) Sync() error {
	begin := f.m.clock.Now()
	err := f.File.Sync()
	f.m.disk.walSync.Observe(f.m.clock.Now().Sub(begin).Seconds())
	return err
}

func (f timedFile) WriteAt(p []byte, off int64) (int, error) {
	begin := f.m.clock.Now()
	n, err := f.File.WriteAt(p, off)
	f.m.disk.walWrite.Observe(f.m.clock.Now().Sub(begin).Seconds())
	f.m.disk.walBytes.Add(float64(n))
	return n, err
}

// timedEngine returns e with its commits measured.
func (m *metrics) timedEngine(e engine.Engine) engine.Engine { return timedEngine{e, m} }

type timedEngine struct {
	engine.Engine
	m *metrics
}

func (t timedEngine) Commit(b *engine.Batch) error {
	begin := t.m.clock.Now()
	err := t.Engine.Commit(b)
	t.m.disk.commit.Observe(t.m.clock.Now().Sub(begin).Seconds())
	return err
}
