#!/bin/bash
# The .deb of a release, the same bytes each time; its path is printed.
#
#   build.sh TARBALL ARCH OUT
#
# TARBALL is the release's <VERSION>.tgz, ARCH amd64 or arm64, OUT the folder for the package.
. "$(dirname "$0")/lib.sh"
TARBALL=$(realpath "$1") ARCH=$2 OUT=$(realpath -m "$3")
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
VERSION=$(basename "$TARBALL" .tgz)
NAME=sagemaker-edge-agent
need dpkg-buildpackage dpkg-dev dh debhelper readelf binutils zstd zstd \
  /usr/share/perl5/Debian/Debhelper/Sequence/installsysusers.pm dh-sequence-installsysusers

WORK=$TOP/build/deb/$ARCH
SOURCE=$WORK/$NAME-$VERSION
rm -rf "$WORK"
mkdir -p "$SOURCE" "$WORK/release" "$OUT"
tar -C "$WORK/release" --no-same-owner -xzf "$TARBALL"
BINARY=$(find "$WORK/release" -path '*/bin/sagemaker_edge_agent_binary')
DOCS=$(dirname "$(dirname "$BINARY")")/docs
SOURCE_DATE_EPOCH=$(stat -c %Y "$BINARY")
export SOURCE_DATE_EPOCH

# Installed is the unpacked program: it starts at once and needs no cache on the board. docs/release.md has the format.
mkdir "$SOURCE/program"
read -r _ offset size _ _ < <(tail -c 128 "$BINARY")
head -c "$((offset + size))" "$BINARY" | tail -c "+$((offset + 1))" | zstd -dcq | tar -x --no-same-owner -C "$SOURCE/program"
[ -x "$SOURCE/program/sagemaker_edge_agent" ] || { echo "$BINARY unpacks to no sagemaker_edge_agent" >&2; exit 1; }

cp -r "$HERE" "$SOURCE/debian"
rm -f "$SOURCE"/debian/{lib.sh,build.sh,check.sh,repository.sh,debian.mk}
cp -r "$TOP/packaging/systemd" "$SOURCE/systemd"
for kind in service sysusers tmpfiles; do
  mv "$SOURCE/systemd/$NAME.$kind" "$SOURCE/debian/"
done
mkdir "$SOURCE/man"
for page in "$TOP"/packaging/man/*.[158]; do
  sed -e "s/@VERSION@/$VERSION/g" -e "s/@DATE@/$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)/g" "$page" >"$SOURCE/man/${page##*/}"
done
"${PYTHON:-python3}" "$TOP/packaging/completion/generate.py" "$SOURCE/completion"
cp -r "$DOCS" "$SOURCE/docs"
find "$SOURCE"/{program,docs} -type d -exec chmod 0755 {} +
find "$SOURCE"/{program,docs} -type f -exec chmod 0644 {} +
chmod 0755 "$SOURCE/program/sagemaker_edge_agent"
find "$SOURCE/program" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
cat >"$SOURCE/debian/changelog" <<EOF
$NAME ($VERSION) stable; urgency=medium

  * Release $VERSION. What changed is in the project's CHANGELOG.md.

 -- SageMaker Edge Agent Maintainers <maintainers@sagemaker-edge-agent.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF

cd "$SOURCE"
dpkg-buildpackage --build=binary --no-sign --host-arch="$ARCH" -d >"$WORK/build.log" 2>&1 ||
  { tail -40 "$WORK/build.log" >&2; exit 1; }
rm -f "$OUT/${NAME}"_*_"$ARCH".{deb,changes,buildinfo}
cp "$WORK/${NAME}_${VERSION}_$ARCH."{deb,changes,buildinfo} "$OUT/"
echo "$OUT/${NAME}_${VERSION}_$ARCH.deb"
