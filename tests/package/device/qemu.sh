#!/bin/bash
# Boots a Debian for aarch64 (kernel, systemd) on an emulated machine, and runs the checks of DEB in it.
#
#   ARCH=arm64 qemu.sh DEB
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || die "Unpacking a Debian needs root: run 'sudo make test-device'."
[ "$ARCH" = arm64 ] || die "Only arm64 is emulated; nspawn.sh runs amd64."
need qemu-system-aarch64 qemu-system-arm mke2fs e2fsprogs apt-ftparchive apt-utils gpg gnupg openssl openssl
KERNEL=$("$HERE/kernel.sh")
ROOT=$WORK/root DISK=$WORK/disk.img LOG=$WORK/console.log
"$HERE/root_with_checks.sh" "$1" "$ROOT" tty
sed -i '/^StandardError/a TTYPath=/dev/ttyAMA0' "$ROOT/etc/systemd/system/checks.service"

step "making the disk"
size=$(du -sm "$ROOT" | cut -f1)
rm -f "$DISK"
truncate -s $((size + size / 4 + 600))M "$DISK"
mke2fs -q -t ext4 -O ^has_journal -d "$ROOT" "$DISK" 2>/dev/null
rm -rf "$ROOT"

# Boots it with a clock that stands so, until its checks are done, which it ends by powering off.
boot() {
  step "$1"
  nice -n 5 timeout --kill-after=10 "${EDGE_DEVICE_SECONDS:-3600}" qemu-system-aarch64 \
    -machine virt -accel tcg,thread=multi -cpu "${CPU:-cortex-a72}" -smp 2 -m 2048 -rtc "base=$2" \
    -no-reboot -nodefaults -display none -serial stdio \
    -kernel "$KERNEL/vmlinuz" -initrd "$KERNEL/initrd" \
    -append "console=ttyAMA0 root=/dev/vda rw quiet panic=-1 systemd.show_status=0 net.ifnames=0" \
    -drive "file=$DISK,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk \
    </dev/null | sed -u "s#\r##g" | tee "$LOG" || true
  last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$LOG" | tail -1)
  [[ $last =~ ,\ 0\ failed$ ]] || { rm -f "$DISK"; die "The checks did not pass: ${last:-they did not end}. The console is in $LOG"; }
}
boot booting utc
boot "rebooting, two years later" "$(date -u -d '2 years' +%FT%T)"
rm -f "$DISK"
echo "$last"
