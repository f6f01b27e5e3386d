#!/bin/bash
# lintian must have nothing to say about a built package, and building it again must give the same bytes.
#
#   check.sh DEB TARBALL ARCH
. "$(dirname "$0")/lib.sh"
DEB=$1 TARBALL=$2 ARCH=$3
HERE=$(cd "$(dirname "$0")" && pwd)
need lintian lintian
AGAIN=$("$HERE/build.sh" "$TARBALL" "$ARCH" "$HERE/../../build/deb/again")
sha256sum "$DEB" "$AGAIN"
cmp "$DEB" "$AGAIN"
tags=$(lintian --allow-root --fail-on=none "$DEB" | grep -v '^N: ' || true)
echo "lintian: $(grep -c . <<<"$tags" || true) errors and warnings"
[ -z "$tags" ] || { echo "$tags"; exit 1; }
