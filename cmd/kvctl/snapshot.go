package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/client"
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
	info, err := a.receive(ctx, file)
	if err != nil {
		return classify("save a snapshot to "+file, err, a.endpoints...)
	}
	return a.show(result{value: map[string]any{"file": file, "bytes": info.Size, "version": info.Version}, simple: func(w io.Writer) {
		fmt.Fprintf(w, "Snapshot saved at %s\n", file)
		if info.Version != "" {
			fmt.Fprintf(w, "Server version %s\n", info.Version)
		}
	}})
}

// receive stores the snapshot of a member in file. How large it will be is known
// from the member's state, about.
func (a *app) receive(ctx context.Context, file string) (info client.SnapshotInfo, err error) {
	r, err := a.at(a.endpoints...)
	if err != nil {
		return info, err
	}
	var state *pb.StatusResponse
	err = a.call(ctx, "ask for the status", func(ctx context.Context, r *remote) (err error) {
		state, err = r.admin().Status(ctx, &pb.StatusRequest{})
		return err
	})
	if err != nil {
		return info, err
	}
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return info, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(part)
		}
	}()
	in := &incoming{w: f, total: state.DbSize, bar: a.progress("receiving")}
	info, err = r.Maintenance().Snapshot(ctx, "", in)
	in.bar.done()
	if errors.Is(err, client.ErrSnapshotDamaged) {
		return info, checkFailed("receive", err, "try again, or another endpoint")
	}
	if err != nil {
		return info, err
	}
	if err = f.Sync(); err != nil {
		return info, err
	}
	if err = os.Rename(part, file); err != nil {
		return info, err
	}
	return info, syncDir(filepath.Dir(file))
}

// incoming is a snapshot on its way.
type incoming struct {
	w        io.Writer
	bar      *progress
	n, total int64
}

func (in *incoming) Write(p []byte) (int, error) {
	n, err := in.w.Write(p)
	in.n += int64(n)
	in.bar.at(in.n, max(in.n, in.total))
	return n, err
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
