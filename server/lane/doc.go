// Package lane lets a handler of an HTTP/2 server write to its stream past the server.
//
// net/http hands each frame of an answer from the handler to the goroutine that
// serves the connection, to one that writes, and back, and each WINDOW_UPDATE from
// a third one to the second. For a watch, whose events are small and many, that is
// most of what an event costs. A lane lies between net/http and the connection. net/http
// keeps all of HTTP/2: headers, settings, pings, resets, limits, the end of streams. Of a
// stream that a handler has taken over, the lane writes the DATA frames and takes the
// WINDOW_UPDATEs; nothing else is different.
//
// # Invariants
//
//   - Frames are whole: what the lane writes lies between frames of the server, and never
//     within a header block (outbound.go).
//   - Windows: of what the client grants to a connection, each byte belongs to the lane
//     or to the server (Conn.grant). What the client grants to a stream that was taken over is
//     the lane's; from then on the server sends nothing there but its end.
//   - Order: a handler takes its stream over when all that it gave to the server has passed;
//     what the lane has gathered is written before what the server writes after it.
//   - Bounds: what waits to be written is at most maxPending for a connection. A stream without
//     a window waits in its own handler.
//
// A frame that is illegal, and a stream that was not taken over, pass unchanged.
//
// # How a stream is found
//
// net/http does not say which stream a handler has. A handler claims the one whose
// response headers have a value that nobody can guess: the lane looks for its bytes
// in the header blocks that pass.
//
// Files: conn.go (what net/http sees; inbound), outbound.go, stream.go (what handlers see).
package lane
