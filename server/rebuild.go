package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// A member rebuilds its state from the others when it has found damage in it, or
// when a majority of the members agrees that it differs from theirs. It
//
//   - writes the mark, a file in its directory with the reason in it;
//   - stops, and starts again (cmd/kvd does both in one process);
//   - puts the database aside, for a person to look at;
//   - repairs itself as raft.Repair says: it neither votes nor serves until it
//     has a state that holds all it ever acknowledged, and a new log behind it;
//   - says in the mark that this is done, takes part again, clears the alarm that
//     named it, if one did, and removes the mark.
//
// Crash states: until the repair is done the mark is there, and the next start
// begins again, at worst with a state that was whole already. Damage that is found
// at start needs no mark to be found again, but the database that is put aside
// does.

var (
	// ErrRebuild ends Run: started again, the member rebuilds its state.
	ErrRebuild = errors.New("this member's state is not to be trusted; it starts again and takes that of the other members")
	// ErrStoreDamaged ends the start of a member whom nobody can help.
	ErrStoreDamaged = errors.New("the stored state is damaged")
)

// keptDamaged is how many databases that were put aside are kept.
const keptDamaged = 2

const (
	asidePrefix = "db.damaged-"
	markRebuild = "rebuild: " // what the mark begins with: the reason follows
	markRebuilt = "rebuilt: "
)

// isDamage tells damage of what is stored from other failures.
func isDamage(err error) bool {
	return errors.Is(err, engine.ErrDamaged) || errors.Is(err, mvcc.ErrCorrupt) || errors.Is(err, ErrDirDamaged)
}

// noRebuild says why this member cannot rebuild its state; empty if it can.
func (s *Server) noRebuild() string {
	switch {
	case s.cfg.ForceNewCluster:
		return "--force-new-cluster needs a sound one"
	case !s.cfg.Maintenance.AutoRebuild:
		return "--auto-rebuild is off"
	case len(s.members.list()) < 2:
		return "no other member can repair it: restore a backup"
	}
	return ""
}

// openTrusted opens the store, or an empty one in its place when what is stored
// is not to be trusted.
func (s *Server) openTrusted() error {
	h := s.parts.home
	reason, err := h.distrusted()
	if err != nil {
		return err
	}
	if reason == nil {
		if err = s.openStore(); err == nil || !isDamage(err) {
			return err
		}
		if h.fresh { // nothing was ever applied: a crash cut it short while it was made
			if err := s.cfg.FS.Remove(s.cfg.dbPath()); err != nil {
				return err
			}
			return s.openStore()
		}
		reason = err
	}
	if why := s.noRebuild(); why != "" {
		return fmt.Errorf("%w: %w; %s", ErrStoreDamaged, reason, why)
	}
	if err := h.mark(markRebuild, reason.Error()); err != nil {
		return err
	}
	kept, err := h.putAside()
	if err != nil {
		return fmt.Errorf("put the damaged database aside: %w", err)
	}
	s.log.Error("the stored state is damaged; it is put aside, and this member rebuilds it from the others",
		slog.Any("reason", reason), slog.String("kept", kept))
	s.parts.rebuild = reason
	return s.openStore()
}

// distrust ends Run with ErrRebuild, or at least says what is wrong. Any
// goroutine, also one that must not wait.
func (s *Server) distrust(reason error) {
	if why := s.noRebuild(); why != "" {
		s.log.Error("the stored state is damaged", slog.Any("reason", reason), slog.String("goes-on", why))
		return
	}
	s.fail(fmt.Errorf("%w: %w", ErrRebuild, reason))
}

// rebuildable makes damage that ended Run a reason to rebuild, and writes the mark.
func (s *Server) rebuildable(err error) error {
	if !errors.Is(err, ErrRebuild) {
		if !isDamage(err) || s.noRebuild() != "" {
			return err
		}
		err = fmt.Errorf("%w: %w", ErrRebuild, err)
	}
	s.log.Error("this member stops to rebuild its state", slog.Any("reason", err))
	return errors.Join(err, s.parts.home.mark(markRebuild, err.Error()))
}

// errDiffers is why a member that was named in a CORRUPT alarm rebuilds its state.
var errDiffers = errors.New("a majority of the members agrees that this one's state differs from theirs")

// absolve clears the alarm that named this member before it was rebuilt, and ends
// the rebuild. What the majority named was put aside.
func (s *Server) absolve(ctx context.Context) error {
	if s.upkeep.alarms.current.Load().differs(s.id) {
		r := &pb.AlarmRequest{MemberID: uint64(s.id), Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_CORRUPT}
		if err := s.upkeep.ask(ctx, commandDivergent, r, nil); err != nil {
			return err
		}
	}
	return s.parts.home.unmark()
}

// distrusted reads the mark. The member's identity decides whether there is one;
// what it says is for people.
func (h *home) distrusted() (reason, err error) {
	text, err := readSmall(h.cfg.FS, h.cfg.rebuildPath())
	if errors.Is(err, vfs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, h.rebuilt = strings.CutPrefix(string(text), markRebuilt); h.rebuilt {
		return nil, nil
	}
	return errors.New(strings.TrimSpace(strings.TrimPrefix(string(text), markRebuild))), nil
}

// mark writes down that the state must be rebuilt, or that it has been.
func (h *home) mark(what, reason string) error {
	reason = strings.TrimPrefix(reason, ErrRebuild.Error()+": ")
	h.rebuilt = what == markRebuilt
	return writeSmall(h.cfg.FS, h.cfg.rebuildPath(), []byte(what+reason+"\n"))
}

// unmark ends it all.
func (h *home) unmark() error {
	if err := h.cfg.FS.Remove(h.cfg.rebuildPath()); err != nil {
		return err
	}
	h.rebuilt = false
	return h.cfg.FS.SyncDir(h.cfg.memberDir())
}

// putAside renames the database and removes the oldest ones that were.
func (h *home) putAside() (kept string, err error) {
	fs, dir := h.cfg.FS, h.cfg.snapDir()
	entries, err := fs.List(dir)
	if err != nil {
		return "", err
	}
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name, asidePrefix) {
			old = append(old, e.Name)
		}
	}
	slices.Sort(old)
	next := 1
	if n := len(old); n > 0 {
		_, _ = fmt.Sscanf(old[n-1], asidePrefix+"%d", &next)
		next++
	}
	for len(old) >= keptDamaged {
		if err := fs.Remove(filepath.Join(dir, old[0])); err != nil {
			return "", err
		}
		old = old[1:]
	}
	kept = filepath.Join(dir, fmt.Sprintf("%s%06d", asidePrefix, next))
	if err := fs.Rename(h.cfg.dbPath(), kept); err != nil && !errors.Is(err, vfs.ErrNotExist) {
		return "", err
	}
	return kept, fs.SyncDir(dir)
}

// noteMembers keeps the list of members beside the database, which would not tell
// it once it is damaged. Who else there is, is all that a rebuild needs to know; an
// older list may do, too. By whoever owns the store at the time.
func (s *Server) noteMembers() {
	h := s.parts.home
	text, err := json.Marshal(s.members.list())
	if err == nil && string(text) != h.noted {
		if err = writeSmall(s.cfg.FS, s.cfg.membersPath(), text); err == nil {
			h.noted = string(text)
		}
	}
	if err != nil {
		s.log.Warn("cannot note the members", slog.Any("error", err))
	}
}

// recallMembers reads that list. Without one, or with one that is damaged itself,
// the members that the directory began with must do.
func (h *home) recallMembers() {
	text, err := readSmall(h.cfg.FS, h.cfg.membersPath())
	if errors.Is(err, vfs.ErrNotExist) {
		return
	}
	var list []Member
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil || len(list) == 0 {
		h.cfg.Logger.Warn("the list of members cannot be read", slog.String("file", h.cfg.membersPath()), slog.Any("error", err))
		return
	}
	h.initial, h.noted = list, string(text)
}
