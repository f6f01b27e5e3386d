#!/bin/bash
# lintian must have nothing to say about the package, and building it again must give the same bytes.
#
#   check.sh TARBALL ARCH OUT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
DEB=$("$HERE/build.sh" "$@")
AGAIN=$("$HERE/build.sh" "$1" "$2" "$TOP/build/deb/again")
sha256sum "$DEB" "$AGAIN"
cmp "$DEB" "$AGAIN"
tags=$(lintian --allow-root --fail-on=none "$DEB" | grep -v '^N: ' || true)
echo "lintian: $(grep -c . <<<"$tags" || true) errors and warnings"
[ -z "$tags" ] || { echo "$tags"; exit 1; }
