package server

import "github.com/keelson-io/keelson/raft/vfs"

// WithoutSync returns fs with syncs that do nothing, for --unsafe-no-fsync: a
// killed process loses nothing, a machine that loses power may lose all.
func WithoutSync(fs vfs.FS) vfs.FS { return unsynced{fs} }

type unsynced struct{ vfs.FS }

func (u unsynced) Create(name string) (vfs.File, error) { return unsyncedFile(u.FS.Create(name)) }
func (u unsynced) Open(name string) (vfs.File, error)   { return unsyncedFile(u.FS.Open(name)) }
func (u unsynced) SyncDir(string) error                 { return nil }

func unsyncedFile(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return noSyncFile{f}, nil
}

type noSyncFile struct{ vfs.File }

func (noSyncFile) Sync() error { return nil }
