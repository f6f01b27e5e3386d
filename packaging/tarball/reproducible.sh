#!/bin/bash
# reproducible.sh: the tarball of ARCH built a second time, from the sources alone, has the same bytes.
. "$(dirname "$0")/../nuitka/lib.sh"

[ -e "$TOP/dist/$ARCH/sha256_hex.shasum" ] || make -C "$TOP" -s tarball ARCH="$ARCH"
first=$(cat "$TOP/dist/$ARCH/sha256_hex.shasum")
cp "$WORK/report.xml" "$WORK/report.first.xml"
rm -rf "$WORK/compiled" "$WORK/tree"
make -C "$TOP" -s tarball ARCH="$ARCH"
second=$(cat "$TOP/dist/$ARCH/sha256_hex.shasum")
[ "$first" = "$second" ] || die "Built twice, the release differs: $first; $second"
echo "built twice, the same bytes: $second"
