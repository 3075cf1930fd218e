package direct

import (
	"bufio"
	"io"
	"sync"
)

// input is what a connection reads from: with a small buffer, so that a quiet one takes little memory,
// or with a large one while much comes at once.
type input struct {
	*bufio.Reader
	conn  io.Reader
	small *bufio.Reader
	came  int // with the last read of conn
	few   int // reads in a row for which the small one would have done
}

const (
	smallInput = 4 << 10
	largeInput = 32 << 10
	// fewReads in a row give the large buffer back.
	fewReads = 16
)

// largeInputs are for connections to which much comes.
var largeInputs = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, largeInput) }}

func newInput(conn io.Reader) *input {
	small := bufio.NewReaderSize(conn, smallInput)
	return &input{Reader: small, conn: conn, small: small}
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if in.Buffered() > 0 {
		return in.Reader.Read(p)
	}
	switch isSmall := in.Reader == in.small; {
	case isSmall && in.came >= smallInput:
		in.Reader = largeInputs.Get().(*bufio.Reader)
		in.Reset(in.conn)
	case !isSmall && in.few >= fewReads:
		in.Reset(nil)
		largeInputs.Put(in.Reader)
		in.Reader = in.small
	}
	n, err := in.Reader.Read(p)
	in.came = n + in.Buffered()
	if in.few++; in.came >= smallInput {
		in.few = 0
	}
	return n, err
}
