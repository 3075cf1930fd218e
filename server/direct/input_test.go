package direct

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// bursts gives at most one of them with each read.
type bursts struct {
	all   [][]byte
	most  int // that somebody had room for
	small int // reads with the small buffer
}

func (b *bursts) Read(p []byte) (int, error) {
	b.most = max(b.most, len(p))
	if len(p) == smallInput {
		b.small++
	}
	if len(b.all) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.all[0])
	if b.all[0] = b.all[0][n:]; len(b.all[0]) == 0 {
		b.all = b.all[1:]
	}
	return n, nil
}

// TestInput: all that comes is read in order, with a large buffer while there is much, and with a
// small one before and after.
func TestInput(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var want []byte
	b := &bursts{}
	burst := func(size int) {
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		want = append(want, p...)
		b.all = append(b.all, p)
	}
	in := newInput(b)
	var got []byte
	read := func() {
		for len(b.all) > 0 || in.Buffered() > 0 {
			p := make([]byte, 1+rng.IntN(200))
			n, err := in.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p[:n]...)
		}
	}
	for range 3 {
		b.most = 0
		for range 30 {
			burst(1 + rng.IntN(smallInput-1))
		}
		read()
		if b.most != smallInput {
			t.Errorf("a quiet connection has room for %d bytes", b.most)
		}
		for range 30 {
			burst(largeInput)
			for range fewReads / 2 {
				burst(100)
			}
		}
		burst(3 * largeInput)
		b.most, b.small = 0, 0
		read()
		if b.most != largeInput || b.small != 1 {
			t.Errorf("a busy connection has room for %d bytes, and for few %d times", b.most, b.small)
		}
		for range fewReads {
			burst(100)
		}
		read()
		b.most = 0
		burst(100)
		read()
		if b.most != smallInput {
			t.Errorf("afterwards it has room for %d bytes", b.most)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("not what has come")
	}
}
