// Package raft replicates commands: it puts bytes into one order on a majority
// of disks and hands them, in that order, to a state machine. It knows indexes
// and terms, not keys.
//
// # Model
//
// The core (core.go) is pure: events go in (a tick, a message, a proposal, a
// finished append or apply), effects come out (append, send, apply, finish a
// waiter). It has no goroutine, lock, clock or file; the simulation of this
// package's tests drives the same code. Around it stands a thin shell of three
// goroutines, all started by Run and joined before it returns:
//
//   - loop owns the core and is the only one to step it;
//   - append owns the log (package wal): one write and one sync for all that waits;
//   - apply calls the state machine and completes the callers who wait.
//
// # Invariants
//
//   - durable <= applied <= committed <= last, on every member.
//   - A vote, and an acknowledgement of an entry, leave only after the sync that
//     makes them durable.
//   - A command is proposed again only after an entry of a later term has been
//     applied without it: then it can never be committed, so a change of leader
//     needs no retry by the caller and applies nothing twice (batch.go).
//   - A read is answered only after this member has applied and published what
//     was committed when the read came (read.go).
//   - A member whose log is damaged neither votes nor acknowledges before it has
//     the state that its peers prove it must have (repair.go).
//
// # Reading order
//
// types.go, propose.go, batch.go (how commands become frames), core.go, loop.go,
// append.go, apply.go, read.go, elect.go (fast failover, hand-over), snapshot.go,
// recover.go (start), repair.go. The transcripts in testdata show whole members
// at work, step by step, with what leaves for the others and what the disk does.
package raft
