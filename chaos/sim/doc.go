// Package sim is ring A: a whole cluster in one goroutine, on simulated time.
//
// # What is real
//
// Members are server.Stepped: the project's own Raft core, log, snapshots, store,
// leases, watch hub, apply step and request handlers. What they take through
// interfaces is this package's: the clock, the network, the disk (strict memory,
// which forgets what was not synced, sector by sector) and the database engine
// (memory; after a crash it holds exactly some committed state). Handlers wait as
// tasks, which are coroutines: one runs at a time, and the simulator says which.
//
// # Determinism
//
// A seed gives a configuration (config.go) and a plan of faults (plan.go), and
// the run follows from both: the same seed twice has the same trace. Chance comes
// from one source for each purpose, so that a plan with fewer faults stays close
// to the one it came from; that is what shrink.go relies on.
//
// # A run
//
// Safety phase: clients write, read, watch and hold leases while the plan breaks
// things. Liveness phase: faults end, everybody must be served and every member
// and watch catch up in bounded time. Then all members lose power once more, come
// back, and package oracle judges what is left.
//
// The plan has a budget: never are more members damaged than may be while what
// was acknowledged survives, so a loss is never excused.
package sim
