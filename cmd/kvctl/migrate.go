package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// migration brings the state of a live cluster into a file from which a new one
// is restored, revision by revision.
//
//	copy     a snapshot of the source becomes a store of our own (replica)
//	follow   a watch of all keys from the snapshot's revision on is replayed into
//	         it. Every revision of etcd changes at least one key, and a watch
//	         delivers all changes in order, so the replica takes the same
//	         revisions; each event's create revision and version must come out
//	         as the source has them, or the migration ends
//	cut over nobody writes to the source any more: the replica catches up with its
//	         last revision, leases are made the same, and every key is compared
//	write    the replica becomes a snapshot file, and if wanted a data directory
//
// Users and roles come with the snapshot alone, since no request shows password
// hashes; the source's auth revision tells whether they changed since.
type migration struct {
	a       *app
	out     string
	member  newMember
	fence   bool
	now     bool // cut over as soon as the replica has caught up
	replica *replica
	auth    uint64 // auth revision at the snapshot
	bar     *progress
}

const (
	// cutOverRounds is how often the end may find that the source was written to.
	cutOverRounds = 5
	// cutOverQuiet is how long the source must stand still: a writer that was
	// forgotten shows itself.
	cutOverQuiet = time.Second
)

func (a *app) migrateCommand() *cobra.Command {
	m := &migration{a: a}
	var dryRun bool
	c := verb("migrate --out FILE", "Move a live etcd's state, revisions included, to a new cluster",
		"  kvctl --endpoints ETCD:2379 migrate --dry-run\n"+
			"  kvctl --endpoints ETCD:2379 migrate --out migrated.db\n"+
			"  kvctl --endpoints ETCD:2379 migrate --out migrated.db --now --fence", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			if dryRun {
				return m.survey(ctx)
			}
			return m.run(ctx)
		})
	c.Long = c.Short + `.

kvctl copies a snapshot, then follows every write until it is told to cut over (Enter, or --now), compares all keys, and writes
a file that "kvctl snapshot restore --bump-revision=0" makes the members of the new cluster of. Stop the source's writers first,
or let --fence do it. See docs/operators/migrate.md.`
	m.member.define(c)
	f := c.Flags()
	f.StringVar(&m.out, "out", "migrated.db", "the snapshot `file` to write")
	f.BoolVar(&m.fence, "fence", false, "stop writers: raise the source's NOSPACE alarm at the cut-over, so that it refuses puts")
	f.BoolVar(&m.now, "now", false, "cut over as soon as everything is copied, without waiting for Enter")
	f.BoolVar(&dryRun, "dry-run", false, "look at the source and say what would be done")
	return c
}

func (m *migration) failed(what string, err error) error {
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	return checkFailed("migrate: "+what, err, "the source is as it was; see docs/operators/migrate.md, then begin again")
}

func (m *migration) say(format string, args ...any) { fmt.Fprintf(m.a.errs, format+"\n", args...) }

func (m *migration) run(ctx context.Context) error {
	if _, err := os.Stat(m.out); err == nil {
		return fileFailed("write "+m.out, fmt.Errorf("%w: %s", os.ErrExist, m.out))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := m.copy(ctx); err != nil {
		return err
	}
	defer m.replica.discard()
	follow, err := m.follow(ctx, m.replica.next())
	if err != nil {
		return err
	}
	defer func() { cancel(); <-follow.done }()
	m.say("following writes; %s", m.hint())
	if err := m.until(ctx, follow, m.enter(ctx)); err != nil {
		return err
	}
	if err := m.finish(ctx, follow); err != nil {
		m.unfence(ctx)
		return err
	}
	return m.write(ctx)
}

func (m *migration) hint() string {
	if m.now {
		return "cutting over as soon as the copy has caught up"
	}
	return "stop the source's writers, then press Enter to cut over"
}

// enter is closed when the operator wants to cut over. The reader of standard
// input ends with its line, or with the process.
func (m *migration) enter(ctx context.Context) <-chan struct{} {
	wanted := make(chan struct{})
	if m.now {
		close(wanted)
		return wanted
	}
	go func(lines *bufio.Reader) {
		if _, err := lines.ReadString('\n'); err == nil || ctx.Err() != nil {
			close(wanted)
		}
	}(m.a.lines)
	return wanted
}

// copy takes the snapshot and makes the replica of it.
func (m *migration) copy(ctx context.Context) (err error) {
	if m.auth, err = m.authRevision(ctx); err != nil {
		return err
	}
	work := m.out + ".work"
	if _, err := m.a.receive(ctx, work); err != nil {
		return classify("migrate: copy a snapshot", err, m.a.endpoints...)
	}
	if m.replica, err = openReplica(work); err != nil {
		os.Remove(work)
		return m.failed("open the copy", err)
	}
	m.say("copied a snapshot of %s at revision %d", strings.Join(m.a.endpoints, ", "), m.replica.revision())
	return nil
}

// until replays until the operator wants to cut over, and shows how far it is.
func (m *migration) until(ctx context.Context, f *follower, wanted <-chan struct{}) error {
	m.bar = m.a.progress("following")
	defer m.bar.done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wanted:
			return nil
		case group, ok := <-f.events:
			if err := m.replay(ctx, f, group, ok); err != nil {
				return err
			}
		case <-tick.C:
			m.bar.note(fmt.Sprintf("following at revision %d; %s", m.replica.revision(), m.hint()))
		}
	}
}

func (m *migration) replay(ctx context.Context, f *follower, group []*event, ok bool) error {
	if !ok {
		return m.failed("follow the source", f.err)
	}
	if err := m.replica.replay(group, func(id int64) int64 { return m.ttl(ctx, id) }); err != nil {
		return m.failed("replay", err)
	}
	return nil
}

// finish catches up with the source's last revision, again and again until the
// source stands still while leases and keys are compared.
func (m *migration) finish(ctx context.Context, f *follower) error {
	if err := m.raiseFence(ctx); err != nil {
		return err
	}
	for round := 0; ; round++ {
		goal, err := m.sourceRevision(ctx)
		if err != nil {
			return err
		}
		m.say("catching up to revision %d", goal)
		if err := m.catchUp(ctx, f, goal); err != nil {
			return err
		}
		sum, keys, wrong := m.compare(ctx, goal)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cutOverQuiet):
		}
		end, err := m.sourceRevision(ctx)
		if err != nil {
			return err
		}
		if end == goal && wrong != nil { // else leases may have come or gone meanwhile
			return wrong
		}
		if end == goal {
			m.say("verified: %d keys at revision %d are equal, SHA-256 %x", keys, goal, sum)
			return m.sameAuth(ctx)
		}
		m.say("the source went on from revision %d to %d meanwhile", goal, end)
		if round == cutOverRounds {
			return m.failed("cut over", fmt.Errorf("the source is still written to (revision %d, then %d): stop its writers, or use --fence", goal, end))
		}
	}
}

// compare makes the leases the same and holds all keys against the source's.
func (m *migration) compare(ctx context.Context, rev int64) (sum []byte, keys int64, err error) {
	if err := m.sameLeases(ctx); err != nil {
		return nil, 0, err
	}
	return m.verify(ctx, rev)
}

func (m *migration) catchUp(ctx context.Context, f *follower, goal int64) error {
	for m.replica.revision() < goal {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case group, ok := <-f.events:
			if err := m.replay(ctx, f, group, ok); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameAuth refuses to go on when users or roles changed since the snapshot.
func (m *migration) sameAuth(ctx context.Context) error {
	now, err := m.authRevision(ctx)
	if err == nil && now != m.auth {
		err = m.failed("compare users and roles", errors.New("they were changed while kvctl followed, which only a new snapshot shows: begin again"))
	}
	return err
}

// write makes the file, and the data directory if one was asked for.
func (m *migration) write(ctx context.Context) error {
	n, err := m.replica.save(m.out, m.a.progress("writing"))
	if err != nil {
		return fileFailed("write "+m.out, err)
	}
	rev := m.replica.revision()
	err = m.a.show(result{
		value: map[string]any{"file": m.out, "bytes": n, "revision": rev},
		simple: func(w io.Writer) {
			fmt.Fprintf(w, "Migrated to %s at revision %d\n", m.out, rev)
			if m.member.dataDir == "" {
				fmt.Fprintf(w, "Next, on the machine of each new member: kvctl snapshot restore %s --bump-revision=0 --data-dir DIR\n", filepath.Base(m.out))
			}
		},
	})
	if m.fence {
		m.say("the source goes on to refuse puts; to use it again: kvctl alarm disarm")
	}
	if err != nil || m.member.dataDir == "" {
		return err
	}
	return m.a.snapshotRestore(ctx, m.out, &m.member, false, 0)
}

// raiseFence makes the source refuse puts.
func (m *migration) raiseFence(ctx context.Context) error {
	if !m.fence {
		return nil
	}
	m.say("raising the source's NOSPACE alarm: it refuses puts from now on")
	return m.alarm(ctx, pb.AlarmRequest_ACTIVATE)
}

// unfence lets the source go on after a migration that failed.
func (m *migration) unfence(ctx context.Context) {
	if !m.fence {
		return
	}
	if err := m.alarm(context.WithoutCancel(ctx), pb.AlarmRequest_DEACTIVATE); err != nil {
		m.say("the source still refuses puts (%v): kvctl alarm disarm", err)
		return
	}
	m.say("took the source's alarm back: it accepts puts again")
}

func (m *migration) alarm(ctx context.Context, action pb.AlarmRequest_AlarmAction) error {
	return m.a.call(ctx, "migrate: fence the source", func(ctx context.Context, r *remote) error {
		list, err := r.cluster().MemberList(ctx, &pb.MemberListRequest{})
		if err != nil {
			return err
		}
		_, err = r.admin().Alarm(ctx, &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_NOSPACE, MemberID: list.Header.GetMemberId()})
		return err
	})
}
