// Package bench measures two stores side by side, in one run on one machine.
//
// Both run as three members with real syncs, started by the same harness with the
// same flags; both are driven by the same raw gRPC code, with generated stubs or,
// where decoding would cost the load generator more than the answer costs the
// server, with bytes (raw.go). Rounds alternate between the two, and the median of
// the rounds counts. Server CPU is the user and system time of all members from
// /proc, divided by the operations done. Absolute figures depend on the machine;
// ratios are what is compared.
//
// A third process that answers every call with an empty reply (empty.go) gives the
// ceiling of gRPC on this machine.
//
// Each row is one file-level function in rows_*.go; report.go prints the table.
package bench
