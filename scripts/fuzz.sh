#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME, one after the other.
# FUZZTIME is a time (60s) or a number of inputs (2000x). FUZZFLAGS are more flags of
# go test; FUZZRESULTS is a file that gets a line of JSON for each target.
set -euo pipefail
GO=${GO:-go}
FUZZTIME=${FUZZTIME:-60s}
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
found=0
while IFS=: read -r file target; do
  found=$((found + 1))
  echo "== $(dirname "$file") $target"
  before=$(date +%s)
  # What is found is made shorter only for a moment: an input may have to wait.
  out=$("$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 100x ${FUZZFLAGS:-} "$(dirname "$file")" 2>&1) || { echo "$out"; exit 1; }
  echo "$out"
  if [ -n "${FUZZRESULTS:-}" ]; then
    inputs=$(grep -o 'execs: [0-9]*' <<<"$out" | tail -1 | grep -o '[0-9]*' || echo 0)
    printf '{"Date":"%s","Commit":"%s","Package":"%s","Target":"%s","Seconds":%d,"Inputs":%d}\n' \
      "$(date +%F)" "$commit" "$(dirname "$file")" "$target" $(($(date +%s) - before)) "$inputs" >>"$FUZZRESULTS"
  fi
done < <(grep -rEo --include='*_test.go' --exclude-dir=compat '^func Fuzz[A-Za-z0-9_]+' . | sed 's/func //' | sort)
[ "$found" -gt 0 ] || { echo "no fuzz target found"; exit 1; }
echo "$found fuzz targets, $FUZZTIME each"
