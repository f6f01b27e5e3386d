#!/bin/bash
# The .deb of ARCH out of the release: dist/sagemaker-edge-agent_VERSION_ARCH.deb, the same bytes each time.
#
#   build.sh VERSION ARCH PROGRAM DOCS OUT
#
# PROGRAM is the unpacked program (a folder with sagemaker_edge_agent in it), DOCS the release's docs/ folder.
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC
VERSION=$1 ARCH=$2 PROGRAM=$3 DOCS=$4 OUT=$5
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
: "${SOURCE_DATE_EPOCH:?set it to the build date of the release, in seconds}"
export SOURCE_DATE_EPOCH
umask 022

[ -x "$PROGRAM/sagemaker_edge_agent" ] || { echo "$PROGRAM holds no sagemaker_edge_agent" >&2; exit 1; }
[ -d "$DOCS/attributions" ] || { echo "$DOCS holds no attributions" >&2; exit 1; }

WORK=$TOP/build/deb/$ARCH
SOURCE=$WORK/sagemaker-edge-agent-$VERSION
rm -rf "$WORK"
mkdir -p "$SOURCE" "$OUT"
cp -r "$HERE" "$SOURCE/debian"
rm -f "$SOURCE/debian/"{build.sh,repository.sh,debian.mk}
cp -r "$TOP/packaging/systemd" "$SOURCE/systemd"
for kind in service sysusers tmpfiles; do
  mv "$SOURCE/systemd/sagemaker-edge-agent.$kind" "$SOURCE/debian/"
done
mkdir "$SOURCE/man"
for page in "$TOP"/packaging/man/*.[158]; do
  sed -e "s/@VERSION@/$VERSION/g" -e "s/@DATE@/$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)/g" "$page" >"$SOURCE/man/${page##*/}"
done
cp -a "$PROGRAM" "$SOURCE/program"
cp -r "$DOCS" "$SOURCE/docs"
# What the files' modes were on the build machine must not matter.
find "$SOURCE/program" "$SOURCE/docs" -type d -exec chmod 0755 {} +
find "$SOURCE/program" "$SOURCE/docs" -type f -perm /111 -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
find "$SOURCE/docs" -type f -exec chmod 0644 {} +
cat >"$SOURCE/debian/changelog" <<EOF
sagemaker-edge-agent ($VERSION) stable; urgency=medium

  * Release $VERSION. What changed is in the project's CHANGELOG.md.

 -- SageMaker Edge Agent Maintainers <maintainers@sagemaker-edge-agent.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF

cd "$SOURCE"
dpkg-buildpackage --build=binary --no-sign --host-arch="$ARCH" -d >"$WORK/build.log" 2>&1 ||
  { tail -40 "$WORK/build.log" >&2; exit 1; }
cp "$WORK/sagemaker-edge-agent_${VERSION}_$ARCH."{deb,changes,buildinfo} "$OUT/"
echo "$OUT/sagemaker-edge-agent_${VERSION}_$ARCH.deb"
