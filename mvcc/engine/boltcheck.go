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
	"syscall"
)

// bbolt trusts its file: it follows whatever a page says, and a damaged page ends
// in a panic, a fault of the process or, worse, in pairs that are missing. So the
// file is read once, with plain reads, before bbolt sees it. Its pages have no
// checksums, but bbolt leaves no room in how it lays them out:
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
)

// boltChecker walks one file.
type boltChecker struct {
	file    *os.File
	page    int64
	end     uint64 // the first page id that was never used
	seen    []uint64
	buffers [maxTreeDepth + 1][]byte
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
	root, freelist, err := c.meta()
	if err == nil {
		c.seen = make([]uint64, c.end/64+1)
		err = c.tree(root, nil, nil, 0)
	}
	if err == nil && freelist != noFreelist {
		err = c.freelist(freelist)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
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

// load reads a page with all that belongs to it, into the buffer of its depth.
func (c *boltChecker) load(id uint64, depth int) ([]byte, error) {
	if depth > maxTreeDepth {
		return nil, fmt.Errorf("page %d is too deep in the tree", id)
	}
	if id < 2 || id >= c.end {
		return nil, fmt.Errorf("page %d is beyond the %d in use", id, c.end)
	}
	b := c.buffers[depth]
	if len(b) == 0 {
		b = make([]byte, c.page)
	}
	read := func(b []byte) error {
		_, err := c.file.ReadAt(b, int64(id)*c.page)
		if errors.Is(err, io.EOF) {
			err = errors.New("the file ends before it")
		}
		return err
	}
	if err := read(b[:c.page]); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	more := uint64(binary.LittleEndian.Uint32(b[12:]))
	if binary.LittleEndian.Uint64(b) != id || id+more >= c.end {
		return nil, fmt.Errorf("page %d says that it is page %d of %d", id, binary.LittleEndian.Uint64(b), more+1)
	}
	for n := id; n <= id+more; n++ {
		if c.seen[n/64]&(1<<(n%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		c.seen[n/64] |= 1 << (n % 64)
	}
	size := int64(more+1) * c.page
	if int64(len(b)) < size {
		b = make([]byte, size)
	}
	c.buffers[depth] = b
	if more > 0 {
		if err := read(b[:size]); err != nil {
			return nil, fmt.Errorf("page %d: %w", id, err)
		}
	}
	return b[:size], nil
}

// tree checks the pages from id down, whose keys lie in [low, high).
func (c *boltChecker) tree(id uint64, low, high []byte, depth int) error {
	b, err := c.load(id, depth)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(b[8:]) == flagLeaf {
		err = c.leaf(b, low, high, depth)
	} else {
		err = c.branch(b, low, high, depth)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
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

func (c *boltChecker) leaf(b []byte, low, high []byte, depth int) error {
	return pairs(b, 4, 8, 12, low, high, func(e, _, value []byte) error {
		switch flags := binary.LittleEndian.Uint32(e); {
		case flags == 0:
			return nil
		case flags != 1 || len(value) < bucketHead:
			return fmt.Errorf("an element has flags %x", flags)
		}
		if root := binary.LittleEndian.Uint64(value); root != 0 {
			return c.tree(root, nil, nil, depth+1)
		}
		inline := value[bucketHead:]
		if len(inline) < pageHead || binary.LittleEndian.Uint16(inline[8:]) != flagLeaf {
			return errors.New("a small bucket has no page")
		}
		return c.leaf(inline, nil, nil, depth+1)
	})
}

func (c *boltChecker) branch(b []byte, low, high []byte, depth int) error {
	if flags := binary.LittleEndian.Uint16(b[8:]); flags != flagBranch || binary.LittleEndian.Uint16(b[10:]) == 0 {
		return fmt.Errorf("it has flags %x and %d elements", flags, binary.LittleEndian.Uint16(b[10:]))
	}
	type child struct {
		id  uint64
		key []byte
	}
	var children []child
	err := pairs(b, 0, 4, 0, low, high, func(e, key, _ []byte) error {
		children = append(children, child{binary.LittleEndian.Uint64(e[8:]), key})
		return nil
	})
	if err != nil {
		return err
	}
	for i, ch := range children {
		upper := high
		if i+1 < len(children) {
			upper = children[i+1].key
		}
		if err := c.tree(ch.id, ch.key, upper, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// freelist checks the list of free pages, which etcd may have left. Without one
// bbolt finds them by itself.
func (c *boltChecker) freelist(id uint64) error {
	b, err := c.load(id, 0)
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
		free := binary.LittleEndian.Uint64(ids)
		if free < 2 || free >= c.end || c.seen[free/64]&(1<<(free%64)) != 0 {
			return fmt.Errorf("page %d is called free", free)
		}
	}
	return nil
}
