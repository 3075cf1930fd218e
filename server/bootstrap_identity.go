package server

import (
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// identity says whose data directory this is. It is a text file, so that a
// person can read it, of exactly these lines:
//
//	keelson-member 1
//	cluster cdf818194e3a8c32
//	member 8e9e05c52164694d
//	name "default"
//	token "etcd-cluster"
//	initial "default=http://localhost:2380"
//	joined ""
//	incarnation 5f1c30e3a9b2d8c4
//	started true
//	crc32c 1a2b3c4d
//
// The last line is the CRC-32C of all bytes before it.
type identity struct {
	Cluster api.ClusterID
	Member  api.MemberID
	Name    string // as the member was called when the directory was made
	Token   string
	Initial string // the initial cluster, as --initial-cluster writes it
	// Joined is the members of the cluster that this one was added to, in JSON;
	// empty when the member began the cluster.
	Joined string
	// Incarnation marks this directory. The cluster knows the member by it.
	Incarnation uint64
	Started     bool // the log was made; it must be there
}

const (
	identityFormat  = 1
	identityMaximum = 1 << 20 // bytes of this and other small files; a longer one is damage
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newIncarnation draws the mark of a new data directory; it is never 0.
func newIncarnation(seed uint64, id api.MemberID) uint64 {
	var s idSource
	s.state.Store(seed ^ uint64(id) ^ 0x6b65656c736f6e00) // not the sequence of request ids
	return max(s.next(), 1)
}

func (id identity) encode() []byte {
	body := fmt.Sprintf("keelson-member %d\ncluster %s\nmember %s\nname %q\ntoken %q\ninitial %q\njoined %q\nincarnation %016x\nstarted %t\n",
		identityFormat, id.Cluster, id.Member, id.Name, id.Token, id.Initial, id.Joined, id.Incarnation, id.Started)
	return fmt.Appendf(nil, "%scrc32c %08x\n", body, crc32.Checksum([]byte(body), castagnoli))
}

// decodeIdentity accepts exactly what encode writes.
func decodeIdentity(b []byte) (identity, error) {
	text := string(b)
	first, _, _ := strings.Cut(text, "\n")
	if v, ok := strings.CutPrefix(first, "keelson-member "); ok {
		if n, err := strconv.Atoi(v); err == nil && n > identityFormat {
			return identity{}, fmt.Errorf("%w: its format is %d; this kvd knows %d and older", ErrForeignDir, n, identityFormat)
		}
	}
	at := strings.LastIndex(text, "crc32c ")
	if at < 0 {
		return identity{}, errors.New("it has no checksum")
	}
	if want := fmt.Sprintf("crc32c %08x\n", crc32.Checksum(b[:at], castagnoli)); text[at:] != want {
		return identity{}, errors.New("its checksum does not match")
	}
	lines := strings.Split(strings.TrimSuffix(text[:at], "\n"), "\n")
	names := []string{"keelson-member", "cluster", "member", "name", "token", "initial", "joined", "incarnation", "started"}
	if len(lines) != len(names) {
		return identity{}, fmt.Errorf("it has %d lines, not %d", len(lines), len(names))
	}
	values := make([]string, len(names))
	for i, name := range names {
		v, ok := strings.CutPrefix(lines[i], name+" ")
		if !ok {
			return identity{}, fmt.Errorf("line %d is not %q", i+1, name)
		}
		values[i] = v
	}
	return identityOf(values)
}

func identityOf(values []string) (identity, error) {
	cluster, err1 := strconv.ParseUint(values[1], 16, 64)
	member, err2 := strconv.ParseUint(values[2], 16, 64)
	name, err3 := strconv.Unquote(values[3])
	token, err4 := strconv.Unquote(values[4])
	initial, err5 := strconv.Unquote(values[5])
	joined, err6 := strconv.Unquote(values[6])
	incarnation, err7 := strconv.ParseUint(values[7], 16, 64)
	started, err8 := strconv.ParseBool(values[8])
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		return identity{}, err
	}
	if member == 0 {
		return identity{}, errors.New("its member id is 0")
	}
	return identity{
		Cluster: api.ClusterID(cluster), Member: api.MemberID(member),
		Name: name, Token: token, Initial: initial, Joined: joined, Incarnation: incarnation, Started: started,
	}, nil
}

// readIdentity returns vfs.ErrNotExist when there is none, ErrDirDamaged when
// it cannot be trusted.
func readIdentity(fs vfs.FS, path string) (identity, error) {
	b, err := readSmall(fs, path)
	if err != nil {
		return identity{}, err
	}
	id, err := decodeIdentity(b)
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, ErrForeignDir):
		return identity{}, fmt.Errorf("%w (%s)", err, path)
	}
	return identity{}, fmt.Errorf("%w: %s: %w", ErrDirDamaged, path, err)
}

func writeIdentity(fs vfs.FS, path string, id identity) error {
	return writeSmall(fs, path, id.encode())
}

// readSmall reads a small file of the data directory.
func readSmall(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if size == 0 || size > identityMaximum {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrDirDamaged, path, size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// writeSmall replaces such a file. Crash before the rename is durable: the old
// content, or none, is found; after it, the new one. Never a part of one.
func writeSmall(fs vfs.FS, path string, content []byte) error {
	tmp := path + ".tmp"
	fail := func(err error) error { return fmt.Errorf("write %s: %w", path, err) }
	if err := fs.Remove(tmp); err != nil && !errors.Is(err, vfs.ErrNotExist) {
		return fail(err)
	}
	f, err := fs.Create(tmp)
	if err != nil {
		return fail(err)
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fail(err)
	}
	if err := fs.Rename(tmp, path); err != nil {
		return fail(err)
	}
	if err := fs.SyncDir(filepath.Dir(path)); err != nil {
		return fail(err)
	}
	return nil
}
