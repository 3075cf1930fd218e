// Package transport carries Raft messages, forwarded proposals, snapshots and
// small control calls between members.
//
// # Contract
//
// Delivery is best effort: a message may be lost, and after a reconnection even
// repeated, as Raft allows. Messages of one class to one peer keep their order.
// Heartbeats, votes and their answers travel in a class of their own and never
// wait behind log entries or snapshots. No method of Transport blocks on the
// network but Call. See Transport and Handler in transport.go.
//
// GRPC is the real transport. MemoryNetwork is the simulated one, with seeded
// drops, copies and delays, one-way cuts and kills.
//
// # Connections
//
// Each member dials each peer twice, and only sends on what it dialled:
//
//	control  heartbeats, votes, read indexes, acknowledgements: small, urgent
//	bulk     log entries and forwarded proposals; calls share the connection
//
// A snapshot gets a third connection for as long as it lasts. Classes have
// connections of their own because streams of one TCP connection wait for each
// other in its send buffer, megabytes deep, whatever HTTP/2 promises. A peer that
// stops reading entries is seen to hear heartbeats (faults_test.go).
//
// One-way streams need no rule about who dials whom, and a member that can be
// reached in one direction only fails in that direction only. They cost nothing:
// with one stream for both directions, one for each, or with the receiver
// dialling, a message and its answer took 2.0 writes, 2.0 reads that found
// something, 22 to 25 µs of CPU and 16 to 20 µs of time (bare TCP: 21, 15), and
// 1.2 µs of CPU a message with 64 on their way. The wake-ups are the cost, so
// what saves CPU is many messages in one frame and many frames in one write.
//
// # Life of a connection
//
// A handshake in the RPC's metadata names protocol, cluster, sender and receiver;
// the other side answers with its own identity or a typed refusal (handshake.go).
// A session is both classes accepted; then Handler.PeerUp. When either breaks,
// the session is over, what waited is dropped and counted, Raft is told
// (Unreachable), and the peer is dialled again at once. If that is refused,
// nobody listens there: Handler.PeerDown, within milliseconds of a SIGKILL. Any
// other failure (silence, a cut cable) says nothing about the process, and is
// left to Raft's timeouts. A member that is not among the peers and opens a stream
// says in its handshake where it is reached, and gets a link, too: this member lags
// behind its addition, and has to answer it (introduce). PeerDown comes once for each time that the peer lived,
// which a stream from it shows as well as one to it.
//
// Tries follow each other after 10 ms, doubling to 500 ms; a stream from the peer
// ends the wait. Unacknowledged bytes break a connection after 5 s
// (TCP_USER_TIMEOUT); an idle one is probed after 10 s.
//
// # Wire format
//
// frame.go has the frames of control and bulk, message.go the messages in them,
// snapshot.go the parts of a snapshot, call.go the calls, seal.go the checksum
// ahead of frames and calls. Lengths are bounded by
// what arrived before anything is allocated for them, counts by named constants,
// and each decoder of peer bytes has a fuzz target. Bytes that make no sense end
// the stream that they came on; they never reach Raft. What a peer may say is
// checked at the edge too: its own name as sender, this member's as receiver, a
// message type that travels, entries without gaps.
//
// # Bounds
//
// A queue holds 8192 records and 64 MiB for each peer and class; beyond that new
// records are dropped, counted and reported. A stream has at most 8 MiB on its
// way. A frame has at most MaxFrame bytes, 4096 records and, unless one record is
// larger, 512 KiB. One snapshot is received at a time.
//
// # Goroutines
//
//	name             started by          ends with
//	events           Start               Close; calls PeerUp, PeerDown, Unreachable
//	link             SetPeers or Start   the peer's removal or Close; dials
//	sender           link, per class     the session
//	stream watcher   link, per class     the session; waits for the break
//	receiver         inbound stream      the stream; calls Message, Forwarded
//	snapshot sender  SendSnapshot        the snapshot; calls SnapshotSent
//	snapshot receiver inbound snapshot   the snapshot; calls SnapshotReceived
//
// and gRPC's own: two for each connection, one for each inbound stream and call.
// Close waits for all of them, so no handler method may block for ever.
//
// # Reading order
//
// transport.go, class.go, queue.go, link.go (the sending side), inbound.go (the
// receiving side), frame.go, seal.go, message.go, dial.go, call.go; snapshot.go,
// receive.go and transfer.go for snapshots; memorynet.go and memory.go for tests.
package transport
