#!/bin/bash
# The .deb of a release, the same bytes each time; its path is printed.
#
#   build.sh TARBALL ARCH OUT
#
# TARBALL is the release's <VERSION>.tgz, ARCH amd64 or arm64, OUT the folder for the package.
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC
TARBALL=$(realpath "$1") ARCH=$2 OUT=$(realpath -m "$3")
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
VERSION=$(basename "$TARBALL" .tgz)
NAME=sagemaker-edge-agent
umask 022

missing=()
for tool in dpkg-buildpackage:dpkg-dev dh:debhelper readelf:binutils; do
  command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
[ -e /usr/share/perl5/Debian/Debhelper/Sequence/installsysusers.pm ] || missing+=(dh-sequence-installsysusers)
[ ${#missing[@]} = 0 ] || { echo "Missing: apt-get install ${missing[*]}" >&2; exit 1; }

WORK=$TOP/build/deb/$ARCH
SOURCE=$WORK/$NAME-$VERSION
rm -rf "$WORK"
mkdir -p "$SOURCE" "$WORK/release" "$OUT"
tar -C "$WORK/release" --no-same-owner -xzf "$TARBALL"
BINARY=$(find "$WORK/release" -path '*/bin/sagemaker_edge_agent_binary')
DOCS=$(dirname "$(dirname "$BINARY")")/docs
SOURCE_DATE_EPOCH=$(stat -c %Y "$BINARY")
export SOURCE_DATE_EPOCH

# Installed is the unpacked program: it starts at once and needs no cache on the board.
run=()
if [ "$ARCH" != "$(dpkg --print-architecture)" ]; then
  case $ARCH in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; esac
  command -v "qemu-$machine-static" >/dev/null || { echo "Missing: apt-get install qemu-user-static" >&2; exit 1; }
  run=("qemu-$machine-static")
fi
mkdir "$SOURCE/program"
"${run[@]}" "$BINARY" --unpack "$SOURCE/program"
[ -x "$SOURCE/program/sagemaker_edge_agent" ] || { echo "$BINARY unpacks to no sagemaker_edge_agent" >&2; exit 1; }

cp -r "$HERE" "$SOURCE/debian"
rm -f "$SOURCE"/debian/{build.sh,check.sh,repository.sh,debian.mk}
cp -r "$TOP/packaging/systemd" "$SOURCE/systemd"
for kind in service sysusers tmpfiles; do
  mv "$SOURCE/systemd/$NAME.$kind" "$SOURCE/debian/"
done
mkdir "$SOURCE/man"
for page in "$TOP"/packaging/man/*.[158]; do
  sed -e "s/@VERSION@/$VERSION/g" -e "s/@DATE@/$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)/g" "$page" >"$SOURCE/man/${page##*/}"
done
cp -r "$DOCS" "$SOURCE/docs"
find "$SOURCE"/{program,docs} -type d -exec chmod 0755 {} +
find "$SOURCE"/{program,docs} -type f -exec chmod 0644 {} +
chmod 0755 "$SOURCE/program/sagemaker_edge_agent"
cat >"$SOURCE/debian/changelog" <<EOF
$NAME ($VERSION) stable; urgency=medium

  * Release $VERSION. What changed is in the project's CHANGELOG.md.

 -- SageMaker Edge Agent Maintainers <maintainers@sagemaker-edge-agent.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF

cd "$SOURCE"
dpkg-buildpackage --build=binary --no-sign --host-arch="$ARCH" -d >"$WORK/build.log" 2>&1 ||
  { tail -40 "$WORK/build.log" >&2; exit 1; }
cp "$WORK/${NAME}_${VERSION}_$ARCH."{deb,changes,buildinfo} "$OUT/"
echo "$OUT/${NAME}_${VERSION}_$ARCH.deb"
