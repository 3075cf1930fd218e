//go:build linux

package real

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

var diskFaults = []*Fault{
	{Name: "crash-at-call", Row: 5, About: "SIGKILL inside a write, sync or rename", Inject: crashAtCall},
	{Name: "stall-follower", Row: 22, About: "each sync of a follower takes 1.5 s longer", Inject: stallFollower},
	{Name: "stall-leader", Row: 22, About: "each sync of the leader takes 1.5 s longer", Inject: stallLeader},
	{Name: "hang-leader", Row: 23, About: "syncs of the leader do not return", Times: 2, Inject: hangLeader},
	{Name: "disk-full", Row: 24, About: "no space is left on a member's disk", Inject: diskFull},
	{Name: "sync-fails", Row: 25, About: "a sync fails; then the power does, too, so that its pages are lost", Inject: syncFails},
	{Name: "write-fails", Row: 26, About: "writes to files fail", Inject: writeFails},
	{Name: "read-fails", Row: 26, About: "reads of files fail while a member starts", Inject: readFails},
	{Name: "power-cut", Row: 27, About: "a member loses power", Times: 5, Inject: powerCutOne},
	{Name: "power-cut-majority", Row: 27, About: "a majority loses power at once", Times: 5, Inject: powerCutMajority},
	{Name: "power-cut-all", Row: 27, About: "all lose power at once", Times: 5, Inject: powerCutAll},
	{Name: "power-cut-journal", Row: 28, About: "a member loses power and its disk the journal's newest names", Times: 5, Inject: powerCutJournal},
	{Name: "torn-tail", Row: 29, About: "a write to the log was cut short", Inject: tornTail},
	{Name: "flip-log", Row: 30, About: "a bit of the synced log is flipped", DiskBytes: roomy, Inject: flipLog},
	{Name: "zero-sector", Row: 31, About: "a sector of the synced log is zeroed, while another member lags", Times: 2, Inject: zeroSector},
	{Name: "damage-store", Row: 32, About: "the database is damaged", Logs: []string{"is damaged"}, Inject: damageStore},
	{Name: "damage-snapshot", Row: 33, About: "bits of a state are flipped on their way, past TCP's checksum", Times: 2, DiskBytes: roomy, Logs: []string{"bytes that make no sense"}, Inject: damageSnapshot},
	{Name: "delete-store", Row: 34, About: "the database is deleted", Inject: deleteStore},
	{Name: "delete-segment", Row: 34, About: "the newest file of the log is deleted", Inject: deleteSegment},
	{Name: "delete-all", Row: 34, About: "the data directory is gone; the member must not come back as itself", Times: 2, Logs: []string{"lost the data directory"}, Inject: deleteAll},
	{Name: "read-only", Row: 35, About: "the disk cannot be written", Inject: readOnlyDisk},
	{Name: "blocked-log", Row: 36, About: "nobody reads the leader's standard error", Times: 2, Args: []string{"--log-level=debug"}, Inject: blockedLog},
}

// roomy is a disk for members that keep many damaged logs.
const roomy = 2 << 30

// crashAtCall kills a member where its disk is between two states: while it
// recovers, in one of its first calls that change files, or later. strace counts
// calls by thread, and which one that is the scheduler decides.
func crashAtCall(r *Run) error {
	m := r.some()
	calls := []string{callsOfSync, callsOfWrite, "?rename,renameat,?renameat2", "ftruncate,fallocate,?unlink,unlinkat"}[r.rand.IntN(4)]
	under, err := r.strace("/dev/null", calls, fmt.Sprint("signal=SIGKILL:when=", 1+r.rand.IntN(4)))
	if err != nil {
		return err
	}
	if err := m.kill("kill"); err != nil {
		return err
	}
	m.under = append(under, "-D")
	if err := m.start(); err != nil {
		return err
	}
	m.expect("crash inside a call")
	if m.wait(5*time.Second) != nil {
		return errors.Join(fmt.Errorf("%w: no %s", errNothing, calls), r.restart(m, "crash inside a call"))
	}
	return nil
}

func stallFollower(r *Run) error {
	m, err := r.follower()
	if err != nil {
		return err
	}
	return r.stall(m, 1500*time.Millisecond, 3*time.Second)
}

func stallLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	return r.stall(m, 1500*time.Millisecond, 3*time.Second)
}

// hangLeader demands that somebody else leads. That it happened shows in that: of a
// call that does not return strace tells nothing.
func hangLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	t, err := r.tamper(m, callsOfSync, fmt.Sprint("delay_enter=", (5*time.Minute).Microseconds()))
	if err != nil {
		return err
	}
	err = errors.Join(r.newLeader(m), r.serves())
	m.expect("the disk hangs") // and does not come back
	return errors.Join(err, t.end(), m.kill("the disk hangs"))
}

// stall holds the syncs of a member back, and demands that others go on.
func (r *Run) stall(m *Member, each, d time.Duration) error {
	t, err := r.tamper(m, callsOfSync, fmt.Sprint("delay_enter=", each.Microseconds()))
	if err != nil {
		return err
	}
	begin := r.now()
	err = r.serves()
	time.Sleep(max(0, d-(r.now()-begin)))
	return errors.Join(err, t.end(), t.await(time.Second))
}

// fillingWrites are large values enough for a database to grow, whose file does so
// in steps of 16 MiB.
const fillingWrites = 300

// diskFull takes a member's space while large values come.
func diskFull(r *Run) error {
	m := r.some()
	m.expect("disk full")
	free, err := m.Disk.fill(int64(r.rand.IntN(256 << 10)))
	if err != nil {
		return err
	}
	defer free()
	before := len(m.lines())
	for i := range fillingWrites {
		r.mine.big(i % 20)
		if m.down() || mentions(m, before, "no space", "NOSPACE") {
			break
		}
	}
	if !m.down() && !mentions(m, before, "no space", "NOSPACE") {
		m.expect("")
		return fmt.Errorf("%w: the member did not notice", errNothing)
	}
	free()
	if !m.down() {
		return r.restart(m, "disk full")
	}
	return nil
}

// mentions reports that a line since the n-th has one of the texts.
func mentions(m *Member, n int, texts ...string) bool {
	for _, l := range m.lines()[n:] {
		for _, text := range texts {
			if strings.Contains(l.Raw, text) {
				return true
			}
		}
	}
	return false
}

// restart ends a member, if it runs, and starts it.
func (r *Run) restart(m *Member, why string) error {
	if err := m.kill(why); err != nil && !errors.Is(err, errDown) {
		return err
	}
	return m.start()
}

// syncFails has one sync fail without being done. The member must stop, and after
// a power cut, which loses what was not synced, nothing acknowledged is missing.
func syncFails(r *Run) error {
	m := r.some()
	if err := r.fails(m, callsOfSync); err != nil {
		return err
	}
	r.result.PowerCuts++
	return m.powerCut(journalLost, 0)
}

func writeFails(r *Run) error { return r.fails(r.some(), callsOfWrite) }

// fails has calls of a member fail, and demands that it stops by itself.
func (r *Run) fails(m *Member, calls string) error {
	m.expect("failing calls")
	t, err := r.tamper(m, calls, "error=EIO")
	if err != nil {
		return err
	}
	err = t.await(5 * time.Second)
	if err == nil {
		if e := m.wait(20 * time.Second); e != nil {
			err = fmt.Errorf("O12: it goes on although a call failed: %w", e)
		}
	} else {
		m.expect("")
	}
	return errors.Join(err, t.end())
}

// readFails has reads of the log and the database fail while they are recovered.
func readFails(r *Run) error {
	m := r.some()
	if err := m.kill("kill"); err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	m.expect("failing reads")
	t, err := r.tamper(m, callsOfRead, "error=EIO")
	if err != nil {
		return err
	}
	err = errors.Join(t.await(3*time.Second), t.end())
	if err != nil {
		m.expect("")
		return err
	}
	time.Sleep(200 * time.Millisecond)
	return r.restart(m, "failing reads")
}

func powerCutOne(r *Run) error { return r.cutAll([]*Member{r.some()}) }

func powerCutMajority(r *Run) error {
	all := r.shuffled()
	return r.cutAll(all[:len(all)/2+1])
}

func powerCutAll(r *Run) error { return r.cutAll(r.members()) }

// powerCutJournal cuts the power of members that have just begun to write new
// files: a start begins a segment.
func powerCutJournal(r *Run) error {
	var wg sync.WaitGroup
	all := r.shuffled()[:1+r.rand.IntN(2)]
	errs := make([]error, len(all))
	for i, m := range all {
		if err := r.restart(m, "kill"); err != nil {
			return err
		}
		r.result.PowerCuts++
		after := r.between(0, 150*time.Millisecond)
		wg.Go(func() {
			time.Sleep(after)
			errs[i] = m.powerCut(journalLost, 0)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// hurt kills a member, does something to its files and starts it.
func (r *Run) hurt(m *Member, harm func() error, says ...string) error {
	if err := m.kill("kill"); err != nil {
		return err
	}
	before := len(m.lines())
	if err := harm(); err != nil {
		return errors.Join(err, m.start())
	}
	if err := m.start(); err != nil {
		return err
	}
	if len(says) == 0 {
		return nil
	}
	return within(patience, func() error {
		if !mentions(m, before, says...) {
			return fmt.Errorf("O11: the damage of %s is not told", m.Name)
		}
		return nil
	})
}

// What a member says of damage that it has found.
const (
	saysNoVote = "neither votes nor serves"
	saysAside  = "it is put aside"
	saysRead   = "stops to rebuild its state"
)

func tornTail(r *Run) error {
	m := r.some()
	return r.hurt(m, func() error { return m.tearLog(r.rand) })
}

func flipLog(r *Run) error {
	m := r.some()
	return r.hurt(m, func() error { return m.flipLog(r.rand) }, saysNoVote)
}

// zeroSector is the script that costs etcd acknowledged writes: one member lags,
// the log of another loses a sector while all are down, and only these two come
// back. They must not serve before the third.
func zeroSector(r *Run) error {
	all := r.shuffled()
	lags, hurt, whole := all[0], all[1], all[2]
	if err := lags.kill("kill"); err != nil {
		return err
	}
	if err := r.serves(); err != nil {
		return err
	}
	for _, m := range all[1:] {
		if err := m.kill("kill"); err != nil {
			return err
		}
	}
	if err := hurt.zeroLog(r.rand); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	for _, m := range all[:2] {
		if err := m.start(); err != nil {
			return err
		}
	}
	if err := r.nobodyServes(3 * r.Election); err != nil {
		return err
	}
	return whole.start()
}

// damageStore may hit a page that nobody uses; what is hit must be found at the
// start, or when it is read.
func damageStore(r *Run) error {
	m := r.some()
	before := len(m.lines())
	if err := r.hurt(m, func() error { return m.damageStore(r.rand) }); err != nil {
		return err
	}
	if err := within(3*time.Second, func() error { return r.together() }); err == nil && !mentions(m, before, saysAside, saysRead) {
		return fmt.Errorf("%w: nobody uses what was damaged", errNothing)
	}
	return nil
}

// damageSnapshot flips bits of the state that a member with a damaged log gets.
// Only what carries checksums of its own survives this, so nothing else must be on
// its way: the fault is a short one, and messages between members are plain.
func damageSnapshot(r *Run) error {
	m, err := r.follower()
	if err != nil {
		return err
	}
	if err := m.kill("kill"); err != nil {
		return err
	}
	if err := m.flipLog(r.rand); err != nil {
		return errors.Join(err, m.start())
	}
	for _, o := range r.peers(m) {
		r.net.Set(o, m.Addr, Link{Forge: 0.01})
	}
	if err := m.start(); err != nil {
		return err
	}
	err = within(5*time.Second, func() error {
		if mentions(m, 0, "repaired the stored data") && r.net.Counts.Forged.Load() > 0 {
			return nil
		}
		return errNothing
	})
	r.net.Heal()
	if r.net.Counts.Forged.Load() == 0 {
		return err
	}
	return nil
}

func deleteStore(r *Run) error {
	m := r.some()
	return r.hurt(m, func() error { return os.Remove(m.dbPath()) })
}

// deleteSegment demands that the member is repaired, or refuses to start if that
// was all of its log; then the file is given back.
func deleteSegment(r *Run) error {
	m := r.some()
	if err := m.kill("kill"); err != nil {
		return err
	}
	name, err := m.newestSegment()
	if err != nil {
		return err
	}
	aside := filepath.Join(m.Disk.dir, "aside")
	if err := os.Rename(name, aside); err != nil {
		return err
	}
	before := len(m.lines())
	if err := m.start(); err != nil {
		return err
	}
	m.expect("a segment is gone")
	err = within(patience, func() error {
		if !m.down() && !mentions(m, before, saysNoVote) {
			return fmt.Errorf("O11: %s does not tell that a file of its log is gone", m.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if m.down() {
		return errors.Join(os.Rename(aside, name), m.start())
	}
	m.expect("")
	return os.Remove(aside)
}

// deleteAll demands that a member which has forgotten everything does not vote as
// itself. Its directory is given back, as an operator would who finds the disk.
func deleteAll(r *Run) error {
	m := r.some()
	if err := m.kill("kill"); err != nil {
		return err
	}
	aside := filepath.Join(m.Disk.dir, "aside")
	if err := os.Rename(m.dataDir(), aside); err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	m.expect("its directory is gone")
	refused := m.wait(15 * time.Second)
	if refused != nil {
		if err := m.kill("its directory is gone"); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(m.dataDir()), os.Rename(aside, m.dataDir())); err != nil {
		return err
	}
	if refused != nil {
		return fmt.Errorf("O12: a member whose directory is gone comes back: %w", refused)
	}
	return m.start()
}

// readOnlyDisk demands a refusal to start that says why.
func readOnlyDisk(r *Run) error {
	m := r.some()
	if err := m.kill("kill"); err != nil {
		return err
	}
	if err := m.Disk.readOnly(true); err != nil {
		return err
	}
	before := len(m.exits())
	if err := m.start(); err != nil {
		return err
	}
	m.expect("read-only disk")
	if err := m.wait(20 * time.Second); err != nil {
		return fmt.Errorf("O12: it runs on a disk that cannot be written: %w", err)
	}
	if e := m.exits()[before]; e.Code < 1 || e.Code == 2 || !strings.Contains(e.Last, "read-only file system") {
		return fmt.Errorf("O12: on a read-only disk %s ends with code %d: %s", m.Name, e.Code, e.Last)
	}
	return m.Disk.readOnly(false)
}

// blockedLog fills the pipe that the leader writes its log to, and demands that it
// goes on serving.
func blockedLog(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	release, queued := m.holdLog()
	defer release()
	err = within(10*time.Second, func() error {
		if n := queued(); n < pipeFull {
			return fmt.Errorf("%w: %d bytes wait in the pipe", errNothing, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	before := r.load.writes.Load()
	time.Sleep(2 * r.Election)
	if n := r.load.writes.Load() - before; n < 20 {
		return fmt.Errorf("O9: %d writes in %v while the log is blocked", n, 2*r.Election)
	}
	return nil
}

// pipeFull is where a pipe of 64 KiB has no room for another line.
const pipeFull = 60 << 10
