package server

import (
	"fmt"
	"io"
	"os"
	"time"
)

// maxTLSFile bounds certificates, keys, CAs and revocation lists. The largest
// public lists are below it; a device file by mistake is not.
const maxTLSFile = 64 << 20

// fileStamp tells two states of a file apart without reading it.
type fileStamp struct{ info os.FileInfo }

func stampFile(name string) (fileStamp, error) {
	info, err := os.Stat(name) // follows links: Kubernetes swaps a link to rotate a secret
	return fileStamp{info}, err
}

func (s fileStamp) same(o fileStamp) bool {
	return s.info != nil && o.info != nil && os.SameFile(s.info, o.info) &&
		s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime())
}

// settled reports whether another write would surely get another time. A file
// that was written just now may be written again within one tick of the file
// system's clock.
func (s fileStamp) settled(now time.Time) bool {
	return s.info != nil && now.Sub(s.info.ModTime()) > stampResolution
}

// stampResolution is the coarsest time of modification in use (FAT has 2 s).
const stampResolution = 2 * time.Second

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTLSFile+1))
	if err == nil && len(b) > maxTLSFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxTLSFile)
	}
	return b, err
}
