// Package wal keeps one member's replicated log and hard state on disk.
//
// It promises two things. What Sync has covered is there after any crash. And
// if the disk lost it all the same, Open says so: it tells a write that a crash
// cut short from one that was durable and is damaged, and never takes the
// second for the first.
//
// # Model
//
// A log is a run of entries (start, last], each with an index and a term, and a
// hard state: term, vote, commit index. Its owner, one goroutine, appends,
// calls Sync, and only then lets the member speak of it. Any goroutine reads.
//
//	Append  buffers entries, replacing all from the first one's index on
//	Sync    one write, one sync: all that was appended is durable, as one batch
//	Mark    when idle: writes, unsynced, the proof that the last Sync succeeded
//	Reset   empties the log behind an installed snapshot
//	Release drops the oldest files
//	Replace begins a new log where Open found damage, when the peers have made up
//	        for it (raft.Repair)
//
// # Format
//
// A log is a directory of segment files NNNNNNNNNNNNNNNN.wal, numbered from 1
// without gaps; a number is never used twice. A segment is preallocated and
// holds
//
//	0      header, 128 bytes (see header)
//	512    proof: a state record, written by Mark in turn with the one at 2048
//	4096   the header again
//	4224   batches, one after the other, then zeros, or what an earlier segment
//	       left in the same file
//
// A batch is a list of records that ends with a footer. A record has a head of
// 32 bytes with a checksum of its own, which covers the length; a body with a
// checksum in the head; and zeros up to a multiple of 8 (see head).
//
//	entry   index a, term b, Raft's entry type; the body is its data
//	cut     the log ends at index a, term b: what follows replaces the rest
//	state   a copy of the footer's body, when term or vote are new
//	pad     zeros: a new state and its footer lie at least 4 KiB apart
//	footer  sequence a, offset b of the batch's begin; the body holds how far
//	        this segment was synced before, the last index, the hard state
//
// Checksums are CRC-32C. A head's starts from cluster, member, segment number,
// the segment's salt and the record's own offset, so that a record counts in
// one place only, and one of an earlier segment in the same file does not verify.
// Footers are numbered through all segments.
//
// # Torn or damaged
//
// Recovery reads batches up to the first byte that does not verify. Behind it
// everything is void if it was never synced, and damage if it was. The log
// itself knows which: whatever is written after a successful sync says how far
// that sync reached. These are proofs that everything below an offset was durable:
//
//   - the segment's header, for its first batch: the file got its name only
//     after it was synced
//   - the next segment's header, for all of this one
//   - a later footer, and a proof that Mark or Close has left
//
// Recovery looks for footers behind the bad byte, too. A bad byte below the
// highest proof is damage: Open returns a *DamageError and changes nothing.
// Above it, everything from the end of the last complete batch on is cut off.
// A batch counts as a whole or not at all. Only its term and vote are taken
// even from a torn one: to remember a vote that was never sent does no harm,
// and this way no single bad sector makes a member forget a vote.
//
// The last batch before a crash has no proof yet. If it is damaged later, and
// nothing was written after it, that looks like a torn write. It is the proof of
// the batch before it, which may lie in the same sector, and then go with it. Mark
// closes this window for an idle log, Close for a stopped one.
//
// # Crash states
//
// Sync. Before it returns: any part of the batch's bytes. Recovery accepts the
// batch if it is complete, else cuts it off. After: all of it.
//
// A failed sync may drop pages that reads still show, and the next sync of the
// same file may succeed without them. So the first failure poisons the log, and
// Open trusts nothing unproven that it can read: it writes complete but
// unproven batches (one, at most) into a new segment, syncs it, and only then
// are they part of the log. Every Open begins a segment; none appends to a file
// that another process has written.
//
// New segment. It is written and synced as *.wal.new, renamed, and the
// directory synced: the commit point. Before: a *.wal.new, which Open removes,
// or the new name, complete. Its file may be the spare, whose name does not count
// either, and whose bytes mean nothing. The header says how far the segment before counts,
// so whatever lies behind that is void, torn or not. Then the old one is cut to
// that length, which is safe at any time. It also means that the last segment
// of a log has at least the size its header says, and the others have less: if
// the newest is deleted, the one before gives that away.
//
// Reset. The new segment says reset; all before it are void from the commit
// point on, whichever of them a crash leaves.
//
// Release. Oldest first, the directory synced after each, so that a crash
// leaves no gap. Entries go only when what replaced them is durable. The file is
// removed, or renamed to be the spare: once the directory is synced, it is gone
// from the log for good, and may be written over. A file that is still read is not.
//
// Create. A log exists from the commit point of its first segment on.
//
// # Assumptions
//
//  1. A file's bytes are durable after Sync, its name after SyncDir, as vfs says.
//  2. A power cut while a sector is written leaves bytes that were already in it
//     and not changed by the write as they were.
//  3. Rename is atomic.
//  4. CRC-32C misses a random change with a chance of 2^-32. It is no protection
//     against one who can write the files. Those who can only write values into
//     the store cannot forge a record inside one, if Options.Salt is random: a
//     forged footer would make recovery from an unlucky crash report damage.
//
// What the log cannot see: that its oldest segment was deleted (Start tells;
// compare it with the state), that all were, or that a disk lost everything from
// some point of the last segment on, proofs included.
//
// # Decisions and their price
//
// Segments are preallocated, not filled with zeros: the first write to each 4 KiB
// block also changes the file's block map, which costs some file systems a journal
// commit (ext4: 168 µs for 4 KiB and a sync, 110 in blocks that were written before).
// So one released file is kept for the next segment, and a log that has gone round
// once pays no more; that is one segment of disk, and bytes behind the log's end that
// are not zero: how much of a write a crash cut short cannot always be said
// (Recovered.TornBytes). Segments are small, so that this comes soon and is not much.
//
// The hard state travels in the footers, so that a vote costs one sync, like
// everything else; a new term spends 4 KiB on keeping its two copies apart. Every
// Open spends one segment, of some 8 KiB once it is closed.
//
// # Reading the source
//
// record.go and segment.go are the format. table.go is the log's logic without
// files, batch.go builds what is written. wal.go has the types; append.go,
// rotate.go and read.go what a running log does; scan.go and recover.go what
// Open does; inspect.go shows a log without opening it. Of the transcripts in
// testdata, calls.txt is the durability protocol, call by call.
package wal
