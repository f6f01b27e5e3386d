#!/bin/bash
# A Debian with systemd for ARCH, as a tar file; its path is printed. Kept in the cache, one for each list of packages.
. "$(dirname "$0")/lib.sh"
need mmdebstrap mmdebstrap "$KEYRING" debian-archive-keyring
PACKAGES=systemd-sysv,dbus,procps,python3

TAR=$CACHE/root-$SUITE-$ARCH-$(echo "$PACKAGES $MIRROR" | sha256sum | cut -c1-12).tar
exec 9>"$TAR.lock"
flock 9
if [ ! -s "$TAR" ]; then
  if [ "$ARCH" != "$(dpkg --print-architecture)" ]; then
    need "qemu-$MACHINE-static" qemu-user-static arch-test arch-test
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [ -e "/proc/sys/fs/binfmt_misc/qemu-$MACHINE" ] ||
      cat "/usr/lib/binfmt.d/qemu-$MACHINE.conf" >/proc/sys/fs/binfmt_misc/register
  fi
  step "unpacking a Debian $SUITE"
  nice -n 10 mmdebstrap --quiet --mode=root --format=tar --architectures="$ARCH" --variant=minbase --include="$PACKAGES" \
    --keyring="$KEYRING" --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$SUITE" "$TAR.part" \
    "deb $MIRROR $SUITE main" "deb $MIRROR $SUITE-updates main" "deb $SECURITY_MIRROR $SUITE-security main" >&2
  mv "$TAR.part" "$TAR"
  step "kept $(basename "$TAR"), $(($(stat -c %s "$TAR") >> 20)) MiB"
fi
echo "$TAR"
