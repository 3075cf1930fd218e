#!/usr/bin/env bash
# Compares the micro-benchmarks of this tree with those of an earlier commit, BASE: the last release, or else the commit
# before. Rounds alternate between the two, so that a busy machine slows both. BENCH, SKIP, COUNT, TIME and PKGS choose.
# The runs stay in bin/bench/; benchstat prints what differs beyond chance.
set -euo pipefail
GO=${GO:-go}
BASE=${BASE:-$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse --short HEAD~1)}
BENCH=${BENCH:-.}
SKIP=${SKIP:-keys=1000000|BenchmarkOpen|BenchmarkSnapshot|BenchmarkFlood|BenchmarkPaced}
COUNT=${COUNT:-6}
TIME=${TIME:-100ms}
PKGS=${PKGS:-./api/keelsonpb ./topk ./mvcc ./raft ./raft/wal ./raft/transport ./server ./server/admission ./server/direct ./server/resource ./server/resource/object ./client}
root=$(git rev-parse --show-toplevel)
out=$root/bin/bench
old=$(mktemp -d)
trap 'git -C "$root" worktree remove --force "$old/tree"; rm -rf "$old"' EXIT
git -C "$root" worktree add -q --detach "$old/tree" "$BASE"
mkdir -p "$out"
rm -f "$out"/*.txt "$out"/*.test
build() { # tree, name of its results
  for p in $PKGS; do
    [ -d "$1/$p" ] || continue
    (cd "$1" && "$GO" test -c -o "$out/$2-${p//[.\/]/_}.test" "$p")
  done
}
build "$old/tree" old
build "$root" new
for _ in $(seq "$COUNT"); do
  for p in $PKGS; do
    for side in old new; do
      bin=$out/$side-${p//[.\/]/_}.test
      [ -x "$bin" ] || continue
      (cd "$root/$p" && "$bin" -test.run '^$' -test.bench "$BENCH" -test.skip "$SKIP" -test.benchtime "$TIME" -test.benchmem) >>"$out/$side.txt"
    done
  done
done
echo "old: $BASE, new: $(git rev-parse --short HEAD)$(git diff --quiet || echo ' and what is not committed')"
"$GO" tool -modfile=tools/go.mod benchstat "old=$out/old.txt" "new=$out/new.txt"
