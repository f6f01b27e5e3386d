#!/bin/bash
# What a newcomer does, in a pristine Debian, as an ordinary user with an empty environment: README.md word for word; with
# "all", `make check` and `make test` after it.
#
#   run.sh SUITE [all]        SUITE: bookworm, trixie
set -euo pipefail
export LC_ALL=C.UTF-8
HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
SUITE=${1:?a Debian release: bookworm or trixie} WHAT=${2:-readme}
die() { echo "$*" >&2; exit 1; }
step() { echo "[$SUITE +${SECONDS}s] $*"; }
[ "$(id -u)" = 0 ] || die "A root of its own needs root: run 'sudo make newcomer'."
command -v mmdebstrap >/dev/null || die "Missing: run 'apt-get install mmdebstrap', then try again."
. "$TOP/packaging/mirrors.sh"

PACKAGES=ca-certificates,git,make,passwd,python3,python3-venv
CACHE=${EDGE_CACHE_DIR:-$HOME/.cache/sagemaker-edge-agent}
mkdir -p "$CACHE"
base=$CACHE/newcomer-$SUITE-$(echo "$PACKAGES $MIRROR" | sha256sum | cut -c1-12).tar
if [ ! -f "$base" ]; then
  step "a pristine Debian"
  mmdebstrap -q --variant=apt --include=$PACKAGES --aptopt='APT::Install-Recommends "false"' "$SUITE" "${base%.tar}.new.tar" \
    "deb $MIRROR $SUITE main" || die "Debian $SUITE could not be unpacked."
  mv "${base%.tar}.new.tar" "$base"
fi

ROOT=$(mktemp -d)
trap 'rm -rf --one-file-system "$ROOT"' EXIT
tar -C "$ROOT" -xf "$base"
# How names are found and whom to trust are this machine's; so is where pip gets its packages from.
cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc/"
cat /etc/ssl/certs/ca-certificates.crt >"$ROOT/etc/ssl/certs/ca-certificates.crt"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$ROOT/etc/"
environment=()
for name in OPENBLAS_CORETYPE OPENBLAS_L2_SIZE PIP_CERT PIP_INDEX_URL PIP_DEFAULT_TIMEOUT HTTPS_PROXY HTTP_PROXY NO_PROXY \
  PYTEST_ADDOPTS; do
  [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done
chroot "$ROOT" useradd --create-home --shell /bin/bash newcomer
git clone -q "file://$TOP" "$ROOT/home/newcomer/agent"
python3 "$ROOT/home/newcomer/agent/tests/newcomer/readme.py" >"$ROOT/home/newcomer/readme.sh"
chroot "$ROOT" chown -R newcomer:newcomer /home/newcomer

as_newcomer() { # COMMAND
  unshare --mount --pid --fork --ipc bash -c '
    mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp"
    exec chroot "$0" setpriv --reuid=newcomer --regid=newcomer --init-groups --no-new-privs \
      env -i HOME=/home/newcomer USER=newcomer PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "${@:2}" \
      bash -c "cd ~/agent && $1"' "$ROOT" "$1" "${environment[@]}" </dev/null
}

step "README.md, word for word"
as_newcomer "bash ~/readme.sh" >"$ROOT/log" 2>&1 || { tail -40 "$ROOT/log" >&2; die "README.md does not work as it stands."; }
[ "$(grep -c '^It is a [0-9]$' "$ROOT/log")" = 2 ] || { tail -40 "$ROOT/log" >&2; die "README's application did not answer twice."; }
if [ "$WHAT" = all ]; then
  step "make check"
  as_newcomer "make check"
  step "make test"
  as_newcomer "make test"
fi
step "done"
