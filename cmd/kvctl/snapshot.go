package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (a *app) snapshotCommand() *cobra.Command {
	save := verb("save FILE", "Save a snapshot of one member's whole state, with its SHA-256",
		"  kvctl snapshot save backup.db", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.snapshotSave(ctx, args[0]) })
	status := verb("status FILE", "Verify a snapshot and show what it holds", "  kvctl snapshot status backup.db -o table", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.snapshotStatus(ctx, args[0]) })
	return family("snapshot", "Save, inspect and restore backups", save, status, a.restoreCommand())
}

// snapshotSave writes FILE.part and renames it once it is whole and durable, so
// that FILE is never half of a snapshot.
func (a *app) snapshotSave(ctx context.Context, file string) error {
	if len(a.endpoints) != 1 {
		return usage("a snapshot is taken from one member: give one endpoint, not %d", len(a.endpoints))
	}
	endpoint := a.endpoints[0]
	did := "save a snapshot to " + file
	r, err := a.connect(ctx, endpoint)
	if err != nil {
		return classify(did, endpoint, err)
	}
	version, n, err := a.receive(ctx, r, file)
	if err != nil {
		return classify(did, endpoint, err)
	}
	return a.show(result{value: map[string]any{"file": file, "bytes": n, "version": version}, simple: func(w io.Writer) {
		fmt.Fprintf(w, "Snapshot saved at %s\n", file)
		if version != "" {
			fmt.Fprintf(w, "Server version %s\n", version)
		}
	}})
}

// receive stores the snapshot of a member in file.
func (a *app) receive(ctx context.Context, r *remote, file string) (version string, n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.admin().Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return "", 0, err
	}
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", 0, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(part)
		}
	}()
	in := &incoming{w: f, sum: sha256.New(), bar: a.progress("receiving")}
	if err = in.copy(stream); err != nil {
		return "", 0, err
	}
	if err = f.Sync(); err != nil {
		return "", 0, err
	}
	if err = os.Rename(part, file); err != nil {
		return "", 0, err
	}
	return in.version, in.n, syncDir(filepath.Dir(file))
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// incoming is a snapshot on its way. Its last 32 bytes are the digest of all
// before them.
type incoming struct {
	w       io.Writer
	sum     hash.Hash
	bar     *progress
	tail    []byte // the last bytes, which may be the digest
	n       int64
	version string
}

func (in *incoming) copy(stream pb.Maintenance_SnapshotClient) error {
	defer in.bar.done()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if m.Version != "" {
			in.version = m.Version
		}
		if _, err := in.w.Write(m.Blob); err != nil {
			return err
		}
		in.digest(m.Blob)
		in.n += int64(len(m.Blob))
		in.bar.at(in.n, in.n+int64(m.RemainingBytes))
	}
	if len(in.tail) < sha256.Size || in.n%512 != sha256.Size {
		return checkFailed("receive", fmt.Errorf("the snapshot ended after %d bytes without its digest", in.n), "try again, or another endpoint")
	}
	if string(in.sum.Sum(nil)) != string(in.tail) {
		return checkFailed("receive", errors.New("the snapshot does not match its SHA-256"), "try again, or another endpoint")
	}
	return nil
}

// digest adds all but the last 32 bytes so far.
func (in *incoming) digest(b []byte) {
	in.tail = append(in.tail, b...)
	if n := len(in.tail) - sha256.Size; n > 0 {
		in.sum.Write(in.tail[:n])
		in.tail = append(in.tail[:0], in.tail[n:]...)
	}
}
