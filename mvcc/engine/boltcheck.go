//go:build !wasip1

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// bbolt trusts its file: it follows whatever a page says, and a damaged page ends
// in a panic, a fault of the process or, worse, in pairs that are missing. So the
// file is read once, with plain reads and by all processors, before bbolt sees it. Its
// pages have no checksums, but bbolt leaves no room in how it lays them out:
//
//	page    id (8 bytes), flags (2), count (2), further pages it takes (4)
//	        count elements of 16 bytes; then keys and values in their order,
//	        without gaps
//	leaf    an element is flags, pos, key size, value size; pos counts from it
//	branch  an element is pos, key size, page id
//
// All that is left to damage unseen are the bytes of keys and values. The order of
// keys bounds the first; records have checksums of their own.
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	metaBytes    = 64 // with the checksum at its end
	pageHead     = 16
	elementBytes = 16
	bucketHead   = 16 // root page and sequence, in a bucket's value
	flagBranch   = 1
	flagLeaf     = 2
	flagFreelist = 16
	noFreelist   = 1<<64 - 1
	maxTreeDepth = 64
	maxAhead     = 64 // pages
	// A bucket's root lies at rootDepth; the subtrees below it are shared out if they are
	// enoughShares for each processor, or else those one level below.
	rootDepth    = 1
	enoughShares = 8
)

// boltChecker checks one file.
type boltChecker struct {
	file *os.File
	page int64
	end  uint64   // the first page id that was never used
	seen []uint64 // a bit for each page, set atomically

	left []subtree // for all processors, once the first walker has found them
}

// subtree is a page whose keys lie in [low, high), and all below it.
type subtree struct {
	id        uint64
	low, high []byte
	depth     int
}

// boltWalker is one goroutine's part of a check. Pages that lie side by side, as those
// of neighbouring keys mostly do, are read together.
type boltWalker struct {
	*boltChecker
	shares bool // leaves large subtrees to others
	buffer []byte
	first  uint64 // page of the buffer
	count  uint64
	ahead  uint64 // how many pages the last read was meant to have
}

// checkBolt reads the whole tree of a file's newest state. A file that is absent
// is sound, an empty one is not.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer f.Close()
	// Under its owner's hands the file is half of this state and half of the next.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return nil // bbolt will say that it is in use
	}
	c := &boltChecker{file: f}
	w := &boltWalker{boltChecker: c, shares: true}
	root, freelist, err := c.meta()
	if err == nil {
		c.seen = make([]uint64, c.end/64+1)
		err = w.tree(subtree{id: root})
	}
	if err == nil {
		err = c.rest()
	}
	if err == nil && freelist != noFreelist {
		err = w.freelist(freelist)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return nil
}

// rest checks the subtrees that the first walker has left.
func (c *boltChecker) rest() error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range min(len(c.left), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			w := &boltWalker{boltChecker: c}
			for i := next.Add(1) - 1; i < int64(len(c.left)) && failed.Load() == nil; i = next.Add(1) - 1 {
				if err := w.tree(c.left[i]); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// meta finds the newest of the two meta pages that verify, as bbolt does. If one
// does not, a crash came while it was written, and the other counts.
func (c *boltChecker) meta() (root, freelist uint64, err error) {
	var newest []byte
	at := func(off int64) []byte {
		b := make([]byte, metaBytes)
		if _, err := c.file.ReadAt(b, off+pageHead); err != nil || !validMeta(b) {
			return nil
		}
		return b
	}
	first := at(0)
	for size := int64(1024); size <= 1<<24; size *= 2 {
		if first != nil && int64(binary.LittleEndian.Uint32(first[8:])) != size {
			continue
		}
		second := at(size)
		if second != nil && int64(binary.LittleEndian.Uint32(second[8:])) != size {
			second = nil
		}
		if first == nil && second == nil {
			continue
		}
		c.page, newest = size, first
		if first == nil || second != nil && binary.LittleEndian.Uint64(second[48:]) > binary.LittleEndian.Uint64(first[48:]) {
			newest = second
		}
		c.end = binary.LittleEndian.Uint64(newest[40:])
		if c.end > 1<<40 {
			return 0, 0, fmt.Errorf("%d pages in use", c.end)
		}
		return binary.LittleEndian.Uint64(newest[16:]), binary.LittleEndian.Uint64(newest[32:]), nil
	}
	return 0, 0, errors.New("neither of its meta pages is valid")
}

func validMeta(b []byte) bool {
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaBytes-8])
	return binary.LittleEndian.Uint32(b) == boltMagic && binary.LittleEndian.Uint32(b[4:]) == boltVersion &&
		binary.LittleEndian.Uint64(b[metaBytes-8:]) == sum.Sum64()
}

// read returns n pages from id on, valid until the next call.
func (w *boltWalker) read(id, n uint64) ([]byte, error) {
	if id < w.first || id+n > w.first+w.count {
		if end := w.first + w.count; id >= w.first && id <= end+w.ahead {
			w.ahead = min(2*w.ahead, maxAhead)
		} else {
			w.ahead = 1
		}
		w.first, w.count = id, min(max(n, w.ahead), w.end-id)
		size := int64(w.count) * w.page
		if int64(cap(w.buffer)) < size {
			w.buffer = make([]byte, size)
		}
		got, err := w.file.ReadAt(w.buffer[:size], int64(id)*w.page)
		if w.count = uint64(int64(got) / w.page); w.count < n {
			w.count = 0
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("the file ends before it")
			}
			return nil, fmt.Errorf("page %d: %w", id, err)
		}
	}
	return w.buffer[int64(id-w.first)*w.page:][:int64(n)*w.page], nil
}

// load returns a page with all that belongs to it, valid until the next call.
func (w *boltWalker) load(id uint64, depth int) ([]byte, error) {
	if depth > maxTreeDepth {
		return nil, fmt.Errorf("page %d is too deep in the tree", id)
	}
	if id < 2 || id >= w.end {
		return nil, fmt.Errorf("page %d is beyond the %d in use", id, w.end)
	}
	b, err := w.read(id, 1)
	if err != nil {
		return nil, err
	}
	more := uint64(binary.LittleEndian.Uint32(b[12:]))
	if binary.LittleEndian.Uint64(b) != id || id+more >= w.end {
		return nil, fmt.Errorf("page %d says that it is page %d of %d", id, binary.LittleEndian.Uint64(b), more+1)
	}
	for n := id; n <= id+more; n++ {
		if w.mark(n) {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
	}
	if more == 0 {
		return b, nil
	}
	return w.read(id, more+1)
}

// mark notes that a page is in use, and reports whether it was already.
func (c *boltChecker) mark(id uint64) bool {
	bit := uint64(1) << (id % 64)
	return atomic.OrUint64(&c.seen[id/64], bit)&bit != 0
}

func (w *boltWalker) tree(t subtree) error {
	b, err := w.load(t.id, t.depth)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(b[8:]) == flagLeaf {
		err = w.leaf(b, t)
	} else {
		err = w.branch(b, t)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", t.id, err)
	}
	return nil
}

// pairs calls fn with each element of a page, its key and what follows that. The
// keys must grow and lie in [low, high).
func pairs(b []byte, posAt, keyAt, valueAt int, low, high []byte, fn func(element, key, value []byte) error) error {
	count := int(binary.LittleEndian.Uint16(b[10:]))
	next := pageHead + count*elementBytes
	least := 0 // of the key's comparison with low
	if next > len(b) {
		return fmt.Errorf("%d elements do not fit", count)
	}
	for i := range count {
		at := pageHead + i*elementBytes
		e := b[at : at+elementBytes]
		key, value := int64(binary.LittleEndian.Uint32(e[keyAt:])), int64(0)
		if valueAt > 0 {
			value = int64(binary.LittleEndian.Uint32(e[valueAt:]))
		}
		pos := int64(at) + int64(binary.LittleEndian.Uint32(e[posAt:]))
		if pos != int64(next) || key == 0 || pos+key+value > int64(len(b)) {
			return fmt.Errorf("element %d is at %d, of %d and %d bytes; expected at %d", i, pos, key, value, next)
		}
		k := b[pos : pos+key]
		if low != nil && bytes.Compare(k, low) < least || high != nil && bytes.Compare(k, high) >= 0 {
			return fmt.Errorf("the key of element %d is out of order", i)
		}
		if err := fn(e, k, b[pos+key:pos+key+value]); err != nil {
			return err
		}
		next = int(pos + key + value)
		low, least = k, 1
	}
	return nil
}

func (w *boltWalker) leaf(b []byte, t subtree) error {
	return pairs(b, 4, 8, 12, t.low, t.high, func(e, _, value []byte) error {
		switch flags := binary.LittleEndian.Uint32(e); {
		case flags == 0:
			return nil
		case flags != 1 || len(value) < bucketHead:
			return fmt.Errorf("an element has flags %x", flags)
		}
		if root := binary.LittleEndian.Uint64(value); root != 0 {
			// This page is still needed: another walker has buffers of its own.
			return (&boltWalker{boltChecker: w.boltChecker, shares: w.shares}).tree(subtree{id: root, depth: t.depth + 1})
		}
		inline := value[bucketHead:]
		if len(inline) < pageHead || binary.LittleEndian.Uint16(inline[8:]) != flagLeaf {
			return errors.New("a small bucket has no page")
		}
		return w.leaf(inline, subtree{depth: t.depth + 1})
	})
}

func (w *boltWalker) branch(b []byte, t subtree) error {
	if flags := binary.LittleEndian.Uint16(b[8:]); flags != flagBranch || binary.LittleEndian.Uint16(b[10:]) == 0 {
		return fmt.Errorf("it has flags %x and %d elements", flags, binary.LittleEndian.Uint16(b[10:]))
	}
	b = bytes.Clone(b) // which outlives the walk below it
	var below []subtree
	err := pairs(b, 0, 4, 0, t.low, t.high, func(e, key, _ []byte) error {
		if n := len(below); n > 0 {
			below[n-1].high = key
		}
		below = append(below, subtree{binary.LittleEndian.Uint64(e[8:]), key, t.high, t.depth + 1})
		return nil
	})
	if err != nil {
		return err
	}
	enough := len(below) >= enoughShares*runtime.GOMAXPROCS(0)
	if w.shares && (t.depth == rootDepth && enough || t.depth == rootDepth+1) {
		w.left = append(w.left, below...)
		return nil
	}
	for _, sub := range below {
		if err := w.tree(sub); err != nil {
			return err
		}
	}
	return nil
}

// freelist checks the list of free pages, if there is one: a page that is in use must
// not be given away. Without a list bbolt finds the free pages by itself.
func (w *boltWalker) freelist(id uint64) error {
	b, err := w.load(id, 0)
	if err != nil {
		return err
	}
	ids, count := b[pageHead:], uint64(binary.LittleEndian.Uint16(b[10:]))
	if count == 0xFFFF {
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if binary.LittleEndian.Uint16(b[8:]) != flagFreelist || count > uint64(len(ids)/8) {
		return fmt.Errorf("page %d is no list of %d free pages", id, count)
	}
	for ; count > 0; count, ids = count-1, ids[8:] {
		if free := binary.LittleEndian.Uint64(ids); free < 2 || free >= w.end || w.mark(free) {
			return fmt.Errorf("page %d is called free", free)
		}
	}
	return nil
}
