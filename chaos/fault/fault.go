// Package fault is the catalogue of what may go wrong: every row of the
// reliability plan by number and name, with the rings that can make it happen,
// and the events by which a simulation plans faults, saves them and shrinks them.
package fault

import (
	"fmt"
	"time"
)

// Kind names what an event does.
type Kind string

// The kinds of the simulator. A member is killed (its writes stay), or loses
// power (what was not synced may be lost, sector by sector).
const (
	Kill       Kind = "kill"
	PowerCut   Kind = "power-cut"
	PowerAll   Kind = "power-cut-all"
	CrashAtIO  Kind = "crash-at-io" // after Arg more calls of the file system
	Pause      Kind = "pause"       // SIGSTOP, then SIGCONT
	PauseAll   Kind = "pause-all"
	Isolate    Kind = "isolate"  // from all others
	CutTo      Kind = "cut-to"   // one way: what it sends is lost
	CutFrom    Kind = "cut-from" // one way: what it should hear is lost
	Bridge     Kind = "bridge"   // all others meet only through it
	Split      Kind = "split"    // the members up to it from the rest
	Loss       Kind = "loss"     // Arg percent of all messages
	Duplicate  Kind = "duplicate"
	Delay      Kind = "delay"     // all links, Arg milliseconds and as much again by chance
	SlowSome   Kind = "slow-some" // one message in Arg takes up to two seconds
	Thin       Kind = "thin"      // each link carries Arg kilobytes a second
	DiskStall  Kind = "disk-stall"
	SyncFails  Kind = "sync-fails" // once; what was dirty may be lost
	DiskFull   Kind = "disk-full"
	FlipBit    Kind = "flip-bit"    // in the synced log; the member is down meanwhile
	ZeroSector Kind = "zero-sector" // likewise
	WriteFails Kind = "write-fails"
	FlushFails Kind = "flush-fails" // the store's commit fails, applied or not
	ClientCut  Kind = "client-cut"  // clients lose the member
	HandOver   Kind = "hand-over"
	FalseDown  Kind = "false-down" // wrong news that all others are gone
	Zombie     Kind = "zombie"     // paused, and cut off for two seconds after it went on
	WallJump   Kind = "wall-jump"  // the member's date is wrong by Arg minutes
	SlowWatch  Kind = "slow-watch" // clients of the member's watches do not read
	Compact    Kind = "compact"    // up to Arg revisions below the newest
	Rot        Kind = "rot"        // a bit of the member's database flips while it is down
	Delete     Kind = "delete"     // the member's database is deleted while it is down
	Alarm      Kind = "alarm"      // a person raises NOSPACE for the member

	// Changes of the membership. Who is added starts when the event ends.
	AddLearner Kind = "add-learner" // and promotes it, too early at first
	AddVoter   Kind = "add-voter"
	Remove     Kind = "remove"
	Return     Kind = "return"    // a removed member starts again with its old directory
	DiskLost   Kind = "disk-lost" // an empty directory, then a replacement. Arg 1: which is to come before the member is removed
)

// Leader as an Event's Member is whoever leads when the event comes.
const Leader = -1

// Event is one fault of a plan.
type Event struct {
	At     time.Duration
	Kind   Kind
	Member int           // number, or Leader
	For    time.Duration `json:",omitempty"`
	Arg    int           `json:",omitempty"`
}

// String prints the event on one line.
func (e Event) String() string {
	who := fmt.Sprint("m", e.Member)
	if e.Member == Leader {
		who = "leader"
	}
	s := fmt.Sprintf("%v %s %s", e.At.Round(time.Millisecond), e.Kind, who)
	if e.For > 0 {
		s += fmt.Sprintf(" for %v", e.For.Round(time.Millisecond))
	}
	if e.Arg != 0 {
		s += fmt.Sprintf(" (%d)", e.Arg)
	}
	return s
}
