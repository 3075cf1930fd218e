// Package campaign kills the leader of three real members again and again, under
// concurrent load of etcd's own client, and checks that nothing was lost.
//
// Load: writers that put unique values (tags), some of them guarded by a
// compare; counters raised by compare-and-swap; readers; and a watch through each
// member. After the last kill the whole history is read from every member and
// judged (check.go):
//
//   - Equal: every member tells the same history.
//   - Durable: every acknowledged write is in it, at the revision that was told.
//   - Once: no tag is in it twice, whatever the client knew of the outcome.
//   - Ordered: a writer's acknowledged writes have rising revisions, and a
//     linearizable read sees at least what was acknowledged before it began.
//   - Counted: a counter ends at the acknowledged increments plus at most the
//     unknown ones.
//   - Watched: each watch told exactly the history, without gap or repeat.
//
// Time to first ack is measured from outside: from SIGKILL until a put sent after
// it to one of the two others is acknowledged (kill.go).
package campaign
