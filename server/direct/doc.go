// Package direct serves busy methods of a gRPC connection below grpc-go's server.
//
// Of a call that is answered at once, grpc-go's part is the largest: a goroutine for it,
// one that writes, and a dozen allocations and wake-ups between them. This package lies between
// grpc-go and the connection, and takes the calls of a few busy methods out of what passes.
// All that has come with one read of the socket is begun together, by the goroutine
// that reads; all that has ended is answered with one write. A stream of messages each way has a
// handler as with grpc-go, whose messages go together with what else waits. Everything else is grpc-go's
// business as before: other methods, settings, compression, and
// every request that is not plain enough to be understood here.
//
// # Invariants
//
//   - A call is taken by its headers or not at all. From then on grpc-go never hears of its stream.
//   - Header blocks: what the client has compressed is undone here, always, and compressed anew
//     for grpc-go. Answers from here use no table that grpc-go's could differ from.
//   - Frames are whole: what is written here lies between frames of grpc-go's, and never within
//     one of its header blocks.
//   - Windows: window is what the client still takes on the connection. grpc-go believes
//     it has that and debt, what was sent from here and not yet granted again, less what is held of it.
//     Its frames that do not fit are held, with those behind them, in order (outbound.go).
//   - What is lent to a write stays as it is until it is written (gather.go).
//   - Each call that was begun is answered once, by Done; Leave tells its owner that nobody listens.
//   - Bounds: a call holds its request and its answer, a stream what stream.go says; a connection at
//     most maxHeld of frames, and maxControl of short ones, and at most MaxStreams calls.
//   - A GOAWAY of grpc-go's names no stream as unseen that was taken.
//
// Files: listener.go and conn.go (what grpc-go sees), input.go and inbound.go (frames that come), headers.go
// (which calls are taken), call.go (a call and its owner), stream.go (one with more messages),
// outbound.go (grpc-go's frames),
// answer.go and frame.go (those of calls), gather.go (what one write sends), pongs.go (answers to
// pings).
package direct
