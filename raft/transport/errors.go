package transport

import "errors"

// Errors of Call. Implementations wrap them with the peer's id.
var (
	// ErrUnknownPeer: SetPeers never named that member, or removed it.
	ErrUnknownPeer = errors.New("transport: unknown peer")
	// ErrUnreachable: there is no working connection. The call surely did not
	// run only if the error is not also ErrUnknownOutcome.
	ErrUnreachable = errors.New("transport: peer is unreachable")
	// ErrUnknownOutcome: the connection broke while the call was under way.
	ErrUnknownOutcome = errors.New("transport: connection lost during the call")
	// ErrClosed: this transport was closed.
	ErrClosed = errors.New("transport: closed")
	// errStranger: the address of a peer is held by one that has lost its data.
	errStranger = errors.New("transport: the peer has another data directory than the cluster knows")
	// ErrTooLarge: the payload or the answer is beyond the limit.
	ErrTooLarge = errors.New("transport: payload is too large")
)
