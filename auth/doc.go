// Package auth knows users, roles and permissions: what etcd calls its auth
// store, as values.
//
// # Model
//
// A State is everything there is to know at one moment: whether authentication
// is on, the auth revision, the users with the roles granted to them, the roles
// with their permissions on key ranges. A State never changes. A change (change.go)
// is a function from a State to the next one and the rows to store; it is made by
// the apply goroutine, in the order of the log, so all members have equal States
// at equal entries. Every change but the switching on adds one to the auth
// revision. The rows are etcd's to the byte, so that snapshots are interchangeable.
//
// A request comes from a Principal: a user's name, and the auth revision at which
// the name was established. Both travel with the command through the log. When
// the revision is older than the State's at apply, the request is refused,
// whatever it asks: what the user may do can have changed in between.
//
// # Permissions
//
// A permission is on one key or on a range, to read, write or both. What a user's
// roles permit is merged into disjoint spans (span.go) when the State is made; a
// range is permitted if one span covers it. Ranges are compared in the form in
// which they are executed: the end "\x00" has no upper bound. The role root permits
// everything, and it alone permits administration.
//
// # Who is it
//
// Passwords are hashed with bcrypt on the member that a client speaks with, before
// anything is replicated, by a bounded number of goroutines at a time
// (password.go). A login yields a token: a simple one (simple.go), which any
// member can verify by a secret that the cluster shares, or a signed JWT (jwt.go).
// Guessing passwords is slowed down (throttle.go).
//
// Read state.go, change.go, span.go, principal.go, then the rest.
package auth
