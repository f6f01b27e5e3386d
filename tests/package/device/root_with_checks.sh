#!/bin/bash
# Unpacks the Debian of ARCH to FOLDER, with what DEB is checked by: root_with_checks.sh DEB FOLDER OUTPUT
# OUTPUT is where the checks write, as StandardOutput= has it.
. "$(dirname "$0")/lib.sh"
DEB=$1 FOLDER=$2 OUTPUT=$3
TAR=$("$HERE/root.sh")
rm -rf "$FOLDER"
mkdir -p "$FOLDER"
tar -C "$FOLDER" --numeric-owner -xf "$TAR"
rm -f "$FOLDER/etc/dpkg/dpkg.cfg.d/99mmdebstrap" # packages to be checked are unpacked whole
PYTHONPATH=$TOP "$TOP/.venv/bin/python" -m tests.package.device.stage "$DEB" "$FOLDER/srv/test"
sed "s#@OUTPUT@#$OUTPUT#" "$HERE/checks.service" >"$FOLDER/etc/systemd/system/checks.service"
mkdir -p "$FOLDER/etc/systemd/system/multi-user.target.wants"
ln -s ../checks.service "$FOLDER/etc/systemd/system/multi-user.target.wants/"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
  getty@tty1.service console-getty.service serial-getty@ttyAMA0.service serial-getty@hvc0.service; do
  ln -sf /dev/null "$FOLDER/etc/systemd/system/$unit"
done
echo 0123456789abcdef0123456789abcdef >"$FOLDER/etc/machine-id"
echo edge-device >"$FOLDER/etc/hostname"
echo "127.0.0.1 localhost edge-device" >"$FOLDER/etc/hosts"
: >"$FOLDER/etc/fstab"
