package vfs

import (
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// CrashClone returns the disk as a power cut could leave it now; m itself goes
// on unharmed. Of each file it keeps, sector by sector, the durable content or
// any version written since, sometimes a torn mixture; of each directory the
// durable entries and any subset of the later changes, in order. What was
// synced is always kept. A nil rng uses the one that NewMem seeded.
//
// The same seed and the same history give the same clone.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	return m.clone(rng, func(r *rand.Rand) chance {
		// Some crashes lose nearly everything, some nearly nothing, most mix.
		return chance{keep: []float64{0, 0.1, 0.5, 0.9, 1}[r.IntN(5)], tear: []float64{0, 0.2}[r.IntN(2)]}
	})
}

// DurableClone returns the disk with nothing but what was synced.
func (m *Mem) DurableClone() *Mem {
	return m.clone(nil, func(*rand.Rand) chance { return chance{} })
}

// Clone returns the disk with everything that was written, synced or not, as
// if the machine had been stopped in peace.
func (m *Mem) Clone() *Mem {
	return m.clone(nil, func(*rand.Rand) chance { return chance{keep: 1} })
}

// chance holds the probabilities of one crash.
type chance struct {
	keep float64 // that a pending change survives
	tear float64 // that a surviving sector is half old, half new
}

type cloner struct {
	rng  *rand.Rand
	p    chance
	made map[*memFile]*memFile // a file under two names stays one file
	out  *Mem
}

func (m *Mem) clone(rng *rand.Rand, decide func(*rand.Rand) chance) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rng == nil {
		rng = m.mu.random
	}
	c := &cloner{rng: rng, made: map[*memFile]*memFile{}, out: NewMem(rng.Uint64())}
	c.p = decide(rng)
	c.out.mu.space = m.mu.space
	for _, top := range []string{".", "/"} {
		c.dir(top, m.mu.root[top])
	}
	return c.out
}

// dir rebuilds one directory and, through its surviving entries, those below.
func (c *cloner) dir(path string, d *memDir) {
	entries := map[string]node{}
	dirOp(d.durable).apply(entries)
	for _, op := range d.pending {
		if c.rng.Float64() < c.p.keep {
			op.apply(entries)
		}
	}
	to := newMemDir()
	c.out.mu.root[path] = to
	for _, name := range sortedKeys(entries) {
		var n node
		switch old := entries[name].(type) {
		case *memFile:
			n = c.file(old)
		case *memDir:
			sub := filepath.Join(path, name)
			c.dir(sub, old)
			n = c.out.mu.root[sub]
		}
		to.now[name], to.durable[name] = n, n
	}
}

func (c *cloner) file(old *memFile) *memFile {
	if f := c.made[old]; f != nil {
		return f
	}
	f := newMemFile()
	c.made[old] = f
	f.size = old.durableSize
	if old.sizeDirty && c.rng.Float64() < c.p.keep {
		f.size = old.size
	}
	f.durableSize = f.size
	for _, n := range sortedKeys(old.sectors) {
		content := c.sector(old.sectors[n])
		if content != nil && n*SectorSize < f.size {
			cut := *content
			clear(cut[min(SectorSize, f.size-n*SectorSize):])
			f.sectors[n] = &sector{now: &cut, durable: &cut}
		}
	}
	return f
}

func (c *cloner) sector(s *sector) *[SectorSize]byte {
	if len(s.pending) == 0 || c.rng.Float64() >= c.p.keep {
		return s.durable
	}
	if c.p.keep == 1 {
		return s.pending[len(s.pending)-1]
	}
	kept := s.pending[c.rng.IntN(len(s.pending))]
	if c.rng.Float64() >= c.p.tear {
		return kept
	}
	torn := *kept
	from := c.rng.IntN(SectorSize)
	if s.durable == nil {
		clear(torn[from:])
	} else {
		copy(torn[from:], s.durable[from:])
	}
	return &torn
}

func sortedKeys[K int64 | string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Damage overwrites bytes of a file as a failing medium would: at once, for
// good, and without anybody having written.
func (m *Mem) Damage(name string, off int64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.fileLocked("damage", name)
	if err != nil {
		return err
	}
	if off+int64(len(p)) > f.size {
		return &fs.PathError{Op: "damage", Path: name, Err: fs.ErrInvalid}
	}
	for len(p) > 0 {
		s, in := f.sector(off/SectorSize), off%SectorSize
		for _, version := range []**[SectorSize]byte{&s.now, &s.durable} {
			hurt := new([SectorSize]byte)
			if *version != nil {
				*hurt = **version
			}
			copy(hurt[in:], p)
			*version = hurt
		}
		n := min(int64(len(p)), SectorSize-in)
		p, off = p[n:], off+n
	}
	return nil
}
