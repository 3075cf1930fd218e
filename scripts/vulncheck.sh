#!/usr/bin/env bash
# Runs govulncheck, unless its database cannot be reached: then it says so and
# succeeds, because a machine without a network must still be able to lint.
set -uo pipefail
GO=${GO:-go}
out=$("$GO" tool -modfile=tools/go.mod govulncheck ./... 2>&1)
code=$?
if [ $code -ne 0 ] && grep -qE 'dial tcp|no such host|fetching vulnerabilities|connection refused|proxyconnect|i/o timeout|403|404' <<<"$out"; then
  echo "govulncheck: skipped, its database cannot be reached"
  exit 0
fi
echo "$out"
exit $code
