//go:build !wasip1

package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/keelson-io/keelson/planted"
)

// mmapReserve is the address space reserved for a file's map. bbolt must stop
// all readers to enlarge the map, so it is made too large to need that.
const mmapReserve = 16 << 30

// keyFill is how full the pages of the key bucket are made: its keys only
// ever grow, so a page is never split again.
const keyFill = 0.9

// maxFreelist is up to how many free pages, each 8 bytes, a commit writes down. A file
// without their list is searched for them when it is opened, which takes a second for
// each 2 GB; a list that is long would be written with every commit. What is longer,
// after many deletes, is written by Close alone.
const maxFreelist = 8192

// rewriteBatch is how many bytes a rewrite copies in one transaction, and syncs:
// what a sync of the log may have to wait for. With 8 MiB the writers' p99 was 2.6
// times its quiet value during a rewrite of 2 GB, with this 1.6 times.
const rewriteBatch = 512 << 10

// discardPortion is how much of a file that was replaced is given back at a time. The
// file system may have to tell the disk, and a sync of the log may have to wait for
// that: 41 and 59 ms (ext4, which discards) for 430 MB at once, 3 to 5 ms for this.
const discardPortion = 16 << 20

// Bolt is the engine on disk: one bbolt file.
//
// # Durability
//
// Commit writes new pages and syncs, then writes the meta page and syncs: a
// crash before the second sync leaves the old state, after it the new one.
// Rewrite fills path.rewrite, syncs it, renames it over path and syncs the
// directory: a crash leaves one whole file of the same content or the other. What is
// open of a file without a name, the kernel gives back.
type Bolt struct {
	path string
	opt  BoltOptions

	// Owned by the committing goroutine.
	poisoned error
	unlisted bool // the last commit did not write the list of free pages

	mu struct {
		sync.Mutex
		file   *boltFile
		view   *boltView // the newest state, shared by all who ask; nil after a commit until asked for
		closed bool
		// replaced are files without a name, which Discard has not seen yet.
		replaced []replacedFile
	}
}

// replacedFile is what a rewrite has put another file in the place of. While it is open,
// its space is taken.
type replacedFile struct {
	users *boltFile
	file  *os.File
}

// boltFile is an open file; the last of its users (the engine and its views)
// closes it.
type boltFile struct {
	db   *bbolt.DB
	refs atomic.Int64
}

// freePages are those that the last commit knew of, with those that readers may need.
func (f *boltFile) freePages() int {
	s := f.db.Stats()
	return s.FreePageN + s.PendingPageN
}

func (f *boltFile) release() error {
	if f.refs.Add(-1) == 0 {
		return f.db.Close()
	}
	return nil
}

// OpenBolt opens or makes the file at path, with all buckets. It reads all of a
// file that is there: see ErrDamaged.
func OpenBolt(path string, opt BoltOptions) (*Bolt, error) {
	if opt.LockTimeout == 0 {
		opt.LockTimeout = time.Second
	}
	// A rewrite that a crash interrupted left a copy that nothing refers to.
	if !opt.ReadOnly {
		if err := os.Remove(path + ".rewrite"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	f, err := openFile(path, opt)
	if err != nil {
		return nil, err
	}
	b := &Bolt{path: path, opt: opt}
	b.mu.file = f
	return b, nil
}

func openFile(path string, opt BoltOptions) (_ *boltFile, err error) {
	defer func() {
		if wrong := recover(); wrong != nil {
			err = fmt.Errorf("%w: %s: %v", ErrDamaged, path, wrong)
		}
	}()
	flags := mapAtOnce
	if opt.ReadOnly {
		flags = 0
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		MmapFlags:       flags,
		Timeout:         opt.LockTimeout,
		InitialMmapSize: mmapReserve,
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		NoSync:          opt.NoSync,
		NoGrowSync:      opt.NoSync,
		ReadOnly:        opt.ReadOnly,
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("engine: open %s: %w", path, err)
	}
	if !opt.ReadOnly && !hasBuckets(db) {
		err = db.Update(func(tx *bbolt.Tx) error {
			for _, name := range Buckets {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("engine: make buckets in %s: %w", path, err), db.Close())
		}
	}
	f := &boltFile{db: db}
	f.refs.Store(1)
	return f, nil
}

// hasBuckets: then opening the file changes nothing in it.
func hasBuckets(db *bbolt.DB) bool {
	return db.View(func(tx *bbolt.Tx) error {
		for _, name := range Buckets {
			if tx.Bucket([]byte(name)) == nil {
				return bbolterrors.ErrBucketNotFound
			}
		}
		return nil
	}) == nil
}

// Commit applies the batch in one bbolt transaction.
func (b *Bolt) Commit(t *Batch) error {
	if b.poisoned != nil {
		return b.poisoned
	}
	file, err := b.current()
	if err != nil {
		return err
	}
	b.unlisted = file.freePages() > maxFreelist
	file.db.NoFreelistSync = b.unlisted
	if err := file.db.Update(func(tx *bbolt.Tx) error { return applyOps(tx, t.Ops) }); err != nil {
		b.poisoned = fmt.Errorf("engine: commit: %w", err)
		return b.poisoned
	}
	b.mu.Lock()
	old := b.mu.view
	b.mu.view = nil
	b.mu.Unlock()
	if old != nil {
		old.Release()
	}
	return nil
}

func applyOps(tx *bbolt.Tx, ops []Op) error {
	var name Bucket
	var bucket *bbolt.Bucket
	for i := range ops {
		op := &ops[i]
		if bucket == nil || op.Bucket != name {
			name, bucket = op.Bucket, tx.Bucket([]byte(op.Bucket))
			if bucket == nil {
				return fmt.Errorf("no bucket %q", name)
			}
			if name == Key {
				bucket.FillPercent = keyFill
			}
		}
		var err error
		if op.Value == nil {
			err = bucket.Delete(op.Key)
		} else {
			err = bucket.Put(op.Key, op.Value)
		}
		if err != nil {
			return fmt.Errorf("bucket %q: %w", name, err)
		}
	}
	return nil
}

func (b *Bolt) current() (*boltFile, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return nil, ErrClosed
	}
	return b.mu.file, nil
}

// View returns the state after the last successful Commit. All who ask between
// two commits share one bbolt transaction.
func (b *Bolt) View() (View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return nil, ErrClosed
	}
	if b.mu.view == nil {
		v, err := newBoltView(b.mu.file)
		if err != nil {
			return nil, err
		}
		b.mu.view = v
	}
	b.mu.view.refs.Add(1)
	return b.mu.view, nil
}

// Rewrite copies the content into a new file and swaps it in. The caller is the
// only one who commits, so the copy misses nothing.
func (b *Bolt) Rewrite(rest func() error) error {
	if b.poisoned != nil {
		return b.poisoned
	}
	old, err := b.current()
	if err != nil {
		return err
	}
	next, err := b.copyFile(old, rest)
	if err != nil {
		return errors.Join(err, os.Remove(b.path+".rewrite"))
	}
	replaced, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err == nil {
		if err = os.Rename(b.path+".rewrite", b.path); err != nil {
			err = errors.Join(err, replaced.Close())
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("engine: rewrite: %w", err), next.release())
	}
	// From here on a restart finds the new file. Until the directory is synced
	// it may also find the old one, whose content is the same, so no commit may
	// reach the new file before.
	if err := syncDir(filepath.Dir(b.path)); err != nil {
		b.poisoned = fmt.Errorf("engine: rewrite: %w", err)
		return errors.Join(b.poisoned, next.release(), replaced.Close())
	}
	b.mu.Lock()
	view := b.mu.view
	b.mu.view, b.mu.file = nil, next
	b.mu.replaced = append(b.mu.replaced, replacedFile{old, replaced})
	b.mu.Unlock()
	b.unlisted = true
	if view != nil {
		view.Release()
	}
	return old.release()
}

// Discard implements Engine.
func (b *Bolt) Discard(rest func() error) (err error) {
	b.mu.Lock()
	files := b.mu.replaced
	b.mu.replaced = nil
	b.mu.Unlock()
	for _, f := range files {
		err = errors.Join(err, f.discard(rest))
	}
	return err
}

// discard makes the file shorter and shorter, if nobody uses it: nobody new can.
func (f replacedFile) discard(rest func() error) error {
	var size int64
	info, err := f.file.Stat()
	if err == nil && f.users.refs.Load() == 0 {
		size = info.Size()
	}
	for size > discardPortion && err == nil {
		size -= discardPortion
		if err = f.file.Truncate(size); err == nil && rest() != nil {
			break
		}
	}
	return errors.Join(err, f.file.Close())
}

func (b *Bolt) copyFile(old *boltFile, rest func() error) (*boltFile, error) {
	next, err := openFile(b.path+".rewrite", BoltOptions{NoSync: true, LockTimeout: b.opt.LockTimeout})
	if err != nil {
		return nil, err
	}
	portion := func() error {
		// Little by little, so that the log's syncs need not wait for one large one.
		if !b.opt.NoSync {
			if err := next.db.Sync(); err != nil {
				return err
			}
		}
		if rest == nil {
			return nil
		}
		return rest()
	}
	err = old.db.View(func(from *bbolt.Tx) error { return copyBuckets(from, next.db, portion) })
	if err == nil && !b.opt.NoSync {
		err = next.db.Sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("engine: rewrite: %w", err), next.release())
	}
	next.db.NoSync, next.db.NoGrowSync = b.opt.NoSync, b.opt.NoSync
	return next, nil
}

// errLost undoes a portion, which is what a planted bug does.
var errLost = errors.New("engine: a portion is lost")

// copyBuckets writes all pairs in key order, a bounded number of bytes in each
// transaction, and calls portion after each that was full.
func copyBuckets(from *bbolt.Tx, to *bbolt.DB, portion func() error) error {
	for _, name := range Buckets {
		c := from.Bucket([]byte(name)).Cursor()
		k, v := c.First()
		for k != nil {
			size := 0
			err := to.Update(func(tx *bbolt.Tx) error {
				bucket := tx.Bucket([]byte(name))
				bucket.FillPercent = keyFill
				for ; k != nil && size < rewriteBatch; k, v = c.Next() {
					if err := bucket.Put(k, v); err != nil {
						return err
					}
					size += len(k) + len(v)
				}
				if planted.DefragLosesBatch && size < rewriteBatch {
					return errLost
				}
				return nil
			})
			if planted.DefragLosesBatch && err == errLost {
				err = nil
			}
			if err == nil && size >= rewriteBatch {
				err = portion()
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Stats reports the pages that the last commit reaches, as etcd does: the file
// itself is enlarged ahead of need.
func (b *Bolt) Stats() Stats {
	v, err := b.View()
	if err != nil {
		return Stats{}
	}
	defer v.Release()
	db := v.(*boltView).file.db
	// A page is pending until no reader can need it, at a later commit.
	free := int64(v.(*boltView).file.freePages()) * int64(db.Info().PageSize)
	return Stats{Allocated: v.Size(), InUse: v.Size() - free, Views: db.Stats().OpenTxN}
}

// Close ends the engine. Views that are still held keep the file open.
func (b *Bolt) Close() error {
	b.mu.Lock()
	if b.mu.closed {
		b.mu.Unlock()
		return nil
	}
	b.mu.closed = true
	view, file := b.mu.view, b.mu.file
	b.mu.view = nil
	b.mu.Unlock()
	if view != nil {
		view.Release()
	}
	err := b.Discard(func() error { return ErrClosed })
	if b.unlisted && b.poisoned == nil {
		file.db.NoFreelistSync = false
		err = errors.Join(err, file.db.Update(func(*bbolt.Tx) error { return nil }))
	}
	return errors.Join(err, file.release())
}

// boltView is one bbolt read transaction, shared. Its buckets are resolved
// when it is made, because bbolt's own look-up of a bucket writes to a map.
type boltView struct {
	file    *boltFile
	tx      *bbolt.Tx
	buckets map[Bucket]*bbolt.Bucket
	refs    atomic.Int64
}

func newBoltView(f *boltFile) (*boltView, error) {
	tx, err := f.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("engine: view: %w", err)
	}
	f.refs.Add(1)
	v := &boltView{file: f, tx: tx, buckets: make(map[Bucket]*bbolt.Bucket, len(Buckets))}
	for _, name := range Buckets {
		if b := tx.Bucket([]byte(name)); b != nil { // absent in files of older etcds, opened read-only
			v.buckets[name] = b
		}
	}
	v.refs.Store(1)
	return v, nil
}

func (v *boltView) Get(b Bucket, key []byte) []byte {
	bucket := v.buckets[b]
	if bucket == nil {
		return nil
	}
	return bucket.Get(key)
}

func (v *boltView) Scan(b Bucket, from, to []byte, fn func(key, value []byte) bool) {
	c := v.Cursor(b)
	for k, val := c.Seek(from); k != nil; k, val = c.Next() {
		if to != nil && string(k) >= string(to) {
			return
		}
		if !fn(k, val) {
			return
		}
	}
}

func (v *boltView) Cursor(b Bucket) Cursor {
	bucket := v.buckets[b]
	if bucket == nil {
		return emptyCursor{}
	}
	return bucket.Cursor()
}

func (v *boltView) Size() int64 { return v.tx.Size() }

func (v *boltView) WriteTo(w io.Writer) (int64, error) { return v.tx.WriteTo(w) }

// Release gives the view back; the last holder ends the transaction. Only
// bbolt's own misuse could make that fail, hence the panic.
func (v *boltView) Release() {
	n := v.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		panic(fmt.Sprintf("engine: view released too often (%d)", n))
	}
	if err := v.tx.Rollback(); err != nil {
		panic(fmt.Sprintf("engine: end of read transaction: %v", err))
	}
	if err := v.file.release(); err != nil {
		panic(fmt.Sprintf("engine: close: %v", err))
	}
}

type emptyCursor struct{}

func (emptyCursor) Seek([]byte) (k, v []byte) { return nil, nil }
func (emptyCursor) Last() (k, v []byte)       { return nil, nil }
func (emptyCursor) Next() (k, v []byte)       { return nil, nil }
