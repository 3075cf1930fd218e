// Package admission decides when a request of a client may begin, so that no
// client can take a member from the others.
//
// # Classes
//
// Every request belongs to one class, and each class has slots, a bound on what
// waits for one, and a queue of its own, so that nothing waits behind a request
// of another class:
//
//	lease     granting, revoking and asking for leases
//	election  transactions that decide who leads or who holds a lock
//	write     every other command
//	read      ranges of few bytes, counts, transactions that only read
//	list      ranges of many bytes; their cost is their bytes
//
// Keep-alives and health never pass here: a stream answers one keep-alive after
// the other, which bounds them.
//
// # Clients
//
// A Flow is what one client does: the user who is logged in, or else the common
// name of a client's certificate, or else one connection. In a class, a request
// is light if its client has fewer than Bounds.Light under way, and had no more for
// a second, and it costs no more than Bounds.LightCost; otherwise it is heavy. Light requests need a slot;
// heavy ones also one of the fewer slots for heavy requests. A client that does
// little therefore begins at once, whatever another one has queued. What waits is
// served in turns between clients by cost (deficit round robin: Shreedhar and
// Varghese, 1996), and among the requests of one client in order.
//
// A full queue makes room for a client with less in it by refusing the newest
// request of the client with the most (longest queue drop: Suter et al., 1999).
//
// # Keeping others' times
//
// Slots alone do not keep the time of a light request when a machine is short of
// processors: the heavy requests that are under way slow it down. So the Pacer
// compares, twenty times a second, what requests of quiet clients take with what
// they take when nobody is heavy. While that is more than a small factor, it
// lets fewer heavy requests run and large answers grow and leave more slowly;
// otherwise more. While it holds others back it stops them now and then for a
// moment, to learn again what a quiet time is. Without quiet clients no request is
// held back: clients that all do the same share the member as it comes.
//
// Large answers slow loud clients down, too, and no slots of their own would spare
// them that. A second Pacer holds back the bytes of such answers alone, for the
// sake of all requests; times are compared with those under about as many
// requests at once, because a loud client's grow with its own load.
//
// # Invariants
//
//	running <= Slots, heavy <= max(Heavy, heavy when Heavy fell), waiting <= Waiting
//	a slot is free => nothing that could take it waits (work conserving)
//	a client's heavy waiter is served after at most the others' quanta (no starvation)
//
// queue.go and pacer.go are values without goroutines, clocks or locks; gate.go
// puts them behind one mutex a class.
package admission
