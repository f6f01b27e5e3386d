#!/bin/bash
# What adds the GPU to an installed agent, the same bytes each time: a .deb, and a tarball of the same files for everybody else,
# unpacked below /. Their paths are printed.
#
#   gpu.sh VERSION ARCH OUT
#
# VERSION is the release's that they go with, ARCH amd64 or arm64, OUT the folder for them.
. "$(dirname "$0")/lib.sh"
VERSION=$1 ARCH=$2 OUT=$(realpath -m "$3")
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
NAME=sagemaker-edge-agent-gpu
PYTHON=${PYTHON:-python3}
LIBRARY=libLiteRtWebGpuAccelerator.so
need dpkg-deb dpkg unzip unzip readelf binutils
case $ARCH in amd64) MACHINE=x86_64 ;; arm64) MACHINE=aarch64 ;; *) die "ARCH is amd64 or arm64, not $ARCH" ;; esac

WORK=$TOP/build/gpu/$ARCH
TREE=$WORK/tree
rm -rf "$WORK" && mkdir -p "$TREE/DEBIAN" "$TREE/usr/lib/sagemaker-edge-agent" "$OUT"
"$PYTHON" -m pip download -q --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: --python-version 3.11 \
  --implementation cp --abi cp311 --platform "manylinux_2_27_$MACHINE" -d "$WORK" -r "$HERE/gpu.lock" 2>"$WORK/pip.log" ||
  { tail -n 20 "$WORK/pip.log" >&2; exit 1; }
unzip -q -j "$WORK"/*.whl "ai_edge_litert/$LIBRARY" -d "$TREE/usr/lib/sagemaker-edge-agent"
chmod 644 "$TREE/usr/lib/sagemaker-edge-agent/$LIBRARY"
"$PYTHON" "$TOP/packaging/nuitka/glibc_floor.py" "$TREE" --output "$WORK/glibc.txt"
glibc=$(readelf -V --wide "$TREE/usr/lib/sagemaker-edge-agent/$LIBRARY" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)

install -D -m 644 "$TOP/packaging/systemd/examples/gpu.conf" "$TREE/usr/lib/systemd/system/sagemaker-edge-agent.service.d/gpu.conf"
doc=$TREE/usr/share/doc/$NAME
mkdir -p "$doc"
cat >"$doc/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sagemaker-edge-agent

Files: *
Copyright: 2026 The SageMaker Edge Agent Authors
License: Apache-2.0

Files: usr/lib/sagemaker-edge-agent/$LIBRARY
Copyright: The Google AI Edge Authors
License: Apache-2.0
Comment:
 As it is published, compiled, in the Python package ai-edge-litert 2.3.0.

License: Apache-2.0
 On Debian systems, the full text of the Apache License, Version 2.0
 can be found in the file \`/usr/share/common-licenses/Apache-2.0'.
END
# What Debian has or wants otherwise is the .deb's alone: the licence's text, a changelog, lintian's overrides.
install -m 644 "$TOP/LICENSE" "$doc/LICENSE"
epoch=$(date -u -d "$(cut -d. -f2 <<<"$VERSION")" +%s)
addon=$WORK/$NAME-$VERSION.tgz
tar -C "$TREE" --sort=name --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' --mtime="@$epoch" -c usr | gzip -9n >"$addon"
rm "$doc/LICENSE"
install -d "$TREE/usr/share/lintian/overrides"
printf '%s\n' "# There is a drop-in and no unit of its own, which debhelper's commands are for." \
  "$NAME: maintainer-script-calls-systemctl [postinst:*]" >"$TREE/usr/share/lintian/overrides/$NAME"
printf '%s (%s) stable; urgency=medium\n\n  * Release %s.\n\n -- SageMaker Edge Agent Maintainers <maintainers@sagemaker-edge-agent.invalid>  %s\n' \
  "$NAME" "$VERSION" "$VERSION" "$(date -u -R -d "@$epoch")" | gzip -9n >"$doc/changelog.gz"
cat >"$TREE/DEBIAN/control" <<END
Package: $NAME
Version: $VERSION
Architecture: $ARCH
Maintainer: SageMaker Edge Agent Maintainers <maintainers@sagemaker-edge-agent.invalid>
Installed-Size: $(du -sk "$TREE/usr" | cut -f1)
Depends: sagemaker-edge-agent, libc6 (>= ${glibc#GLIBC_}), libvulkan1, udev
Section: misc
Priority: optional
Description: runs models of the SageMaker Edge Agent on the GPU
 LiteRT's WebGPU accelerator, for boards whose GPU has a Vulkan driver, and
 what the agent's systemd unit needs for it. A model runs on the GPU where its
 package asks for that.
END
cat >"$TREE/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart sagemaker-edge-agent.service
fi
END
cat >"$TREE/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
END
chmod 755 "$TREE"/DEBIAN/post*
(cd "$TREE" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k2 >DEBIAN/md5sums)
find "$TREE" -type d -exec chmod 755 {} +
find "$TREE" -exec touch --no-dereference --date="@$epoch" {} +
rm -f "$OUT/${NAME}"_*_"$ARCH".deb "$OUT/$NAME"-*.tgz
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$TREE" "$OUT/${NAME}_${VERSION}_$ARCH.deb" >/dev/null
cp "$addon" "$OUT/"
printf '%s\n' "$OUT/${NAME}_${VERSION}_$ARCH.deb" "$OUT/$NAME-$VERSION.tgz"
