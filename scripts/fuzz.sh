#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME, one after the other.
# FUZZTIME is a time (60s) or a number of inputs (2000x).
set -euo pipefail
GO=${GO:-go}
FUZZTIME=${FUZZTIME:-60s}
found=0
while IFS=: read -r file target; do
  found=$((found + 1))
  echo "== $(dirname "$file") $target"
  "$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" "$(dirname "$file")"
done < <(grep -rEo --include='*_test.go' --exclude-dir=compat '^func Fuzz[A-Za-z0-9_]+' . | sed 's/func //' | sort)
[ "$found" -gt 0 ] || { echo "no fuzz target found"; exit 1; }
echo "$found fuzz targets, $FUZZTIME each"
