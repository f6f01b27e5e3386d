#!/bin/bash
# Boots a Debian of this machine's architecture under a real systemd in a container, and runs the checks of DEB in it.
#
#   ARCH=amd64 nspawn.sh DEB
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || die "A container needs root: run 'sudo make test-package'."
need systemd-nspawn systemd-container apt-ftparchive apt-utils gpg gnupg openssl openssl
ROOT=$WORK/nspawn
"$HERE/root_with_checks.sh" "$1" "$ROOT" append:/results.txt
[ -s /etc/machine-id ] || { [ -e /etc/machine-id ] || touch /etc/machine-id; echo 0123456789abcdef0123456789abcdee >/etc/machine-id; }

# Boots it until its checks are done, which it ends by powering off.
boot() {
  step "$1"
  # A mount namespace of its own: nspawn leaves files in /run, and on machines without systemd it needs its folders there.
  unshare --mount --propagation private bash -c '
    [ -d /run/systemd/system ] || { mount -t tmpfs tmpfs /run && mkdir -p /run/systemd; }
    exec timeout --kill-after=10 900 systemd-nspawn --quiet --register=no --keep-unit --private-network --resolv-conf=off \
      --directory="$0" --boot --console=pipe systemd.show_status=0
  ' "$ROOT" </dev/null >"$WORK/console.log" 2>&1 || true
  # Of the control groups that nspawn leaves, the empty ones go.
  find /sys/fs/cgroup -depth -type d \( -path '*/payload*' -o -name supervisor \) -exec rmdir {} + 2>/dev/null || true
  sleep 0.3
  last=$(tail -1 "$ROOT/results.txt")
  [[ $last =~ ^[0-9]+\ passed,\ 0\ failed$ ]] || { tail -20 "$WORK/console.log" >&2; die "The checks did not pass: ${last:-the machine did not boot}"; }
}
: >"$ROOT/results.txt"
tail -f "$ROOT/results.txt" --pid=$$ &
boot booting
echo "rebooting" >>"$ROOT/results.txt"
boot rebooting
rm -rf "$ROOT"
