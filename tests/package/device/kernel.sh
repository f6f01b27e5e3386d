#!/bin/bash
# A Debian kernel for ARCH with a small initial file system for a virtio disk; prints the folder that holds `vmlinuz` and
# `initrd`. Kept in the cache.
. "$(dirname "$0")/lib.sh"
need apt-get apt cpio cpio "$KEYRING" debian-archive-keyring modinfo kmod
FLAVOUR=linux-image-cloud-$ARCH
OUT=$CACHE/kernel-$SUITE-$ARCH
exec 9>"$OUT.lock"
flock 9
if [ ! -s "$OUT/initrd" ]; then
  APT=$WORK/apt
  rm -rf "$APT" && mkdir -p "$APT/lists/partial" "$APT/archives/partial" "$APT/debs"
  touch "$APT/status"
  echo "deb [signed-by=$KEYRING] $MIRROR $SUITE main" >"$APT/sources.list"
  apt() { # apt of its own, so that this machine's package lists and architectures stay as they are
    apt-get -qq -o Dir::Etc::SourceList="$APT/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$APT" \
      -o Dir::State::lists="$APT/lists" -o Dir::State::status="$APT/status" -o Dir::Cache="$APT" -o APT::Sandbox::User=root \
      -o APT::Architecture="$ARCH" -o APT::Architectures="$ARCH" "$@"
  }
  step "fetching the kernel"
  apt update
  # The flavour's package only depends on the kernel of the day.
  kernel=$(cd "$APT/debs" && apt download "$FLAVOUR" >&2 && dpkg-deb -f ./*.deb Depends | grep -o "linux-image-[0-9][^ ,]*")
  (cd "$APT/debs" && rm -f ./*.deb && apt download "$kernel" busybox-static >&2)
  for deb in "$APT"/debs/*.deb; do dpkg-deb -x "$deb" "$APT/x"; done

  T=$APT/initrd
  mkdir -p "$T"/{bin,dev,proc,sys,root,modules}
  cp "$APT/x/bin/busybox" "$T/bin/"
  ln -s busybox "$T/bin/sh"
  tree=$APT/x/lib/modules
  module() { # copies a module after those it depends on
    local file dependency
    file=$(find "$tree" -name "$1.ko*" -o -name "${1//_/-}.ko*" | head -1)
    [ -n "$file" ] || return 0 # built in
    for dependency in $(modinfo -F depends "$file" | tr , ' '); do module "$dependency"; done
    grep -qsx "${file##*/}" "$T/order" || { cp "$file" "$T/modules/"; echo "${file##*/}" >>"$T/order"; }
  }
  touch "$T/order"
  for name in virtio_pci virtio_mmio virtio_blk crc32c_generic ext4; do module "$name"; done
  cat >"$T/init" <<'I'
#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
while read -r file; do busybox insmod "/modules/$file"; done </order
n=0
while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do busybox usleep 50000; n=$((n + 1)); done
busybox mount -t ext4 /dev/vda /root
busybox umount /proc
busybox umount /sys
exec busybox switch_root /root /lib/systemd/systemd
I
  chmod +x "$T/init"
  mkdir -p "$OUT"
  cp "$APT"/x/boot/vmlinuz-* "$OUT/vmlinuz"
  (cd "$T" && find . | sort | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$OUT/initrd.part"
  mv "$OUT/initrd.part" "$OUT/initrd"
  step "$kernel, modules: $(tr '\n' ' ' <"$T/order")"
  rm -rf "$APT"
fi
echo "$OUT"
