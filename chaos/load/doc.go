// Package load drives workloads against a real cluster and records all of it: a
// goroutine for each client, one for each watcher, one collector for each member
// and one compactor.
//
// Collectors are watches of all keys from the first revision on, which are opened
// again where they ended; what they are told is the order that package oracle
// judges by, so nothing is compacted that one of them has not seen.
//
//	l := load.Start(ctx, rec, cfg, members, dial)
//	... faults ...
//	l.Stop()                 // clients end, watchers stay
//	err := l.Finish(ctx)     // a last write, which everybody must see
//
// Finish also reads the state of every member. The seed decides what clients ask,
// but for what answers and times decide.
package load
