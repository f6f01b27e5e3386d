# Shared by the build scripts: what is needed, where caches are, which machine is built for.
# Sourced with ARCH set (amd64 or arm64).
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH PYTHONHOME

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
case ${ARCH:?set ARCH to amd64 or arm64} in
  amd64) MACHINE=x86_64 ;;
  arm64) MACHINE=aarch64 ;;
  *) echo "ARCH is amd64 or arm64, not '$ARCH'" >&2; exit 1 ;;
esac
TRIPLE=$MACHINE-linux-gnu
WORK=$TOP/build/nuitka/$ARCH
ROOT=$WORK/root
# The oldest distribution served: its C library is what every part is linked against.
SUITE=bullseye
# CPython and OpenSSL are compiled from the sources of the newest Debian release that has this Python.
SOURCE_SUITE=bookworm
. "$TOP/packaging/mirrors.sh"
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

die() { echo "$*" >&2; exit 1; }
step() { echo "[$ARCH +${SECONDS}s] $*"; }

# need COMMAND PACKAGE ...: installs what is missing, or says in one sentence what to install.
need() {
  local missing=()
  while [ $# -gt 1 ]; do
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} = 0 ] && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step "installing ${missing[*]}"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "${missing[@]}"; } \
      >/dev/null || die "These packages could not be installed: ${missing[*]}"
  else
    die "Missing: run 'apt-get install ${missing[*]}' as root, then try again."
  fi
}

# The cache is a help, never a need: without it everything is fetched and compiled again.
if [ -z "${EDGE_CACHE_DIR+set}" ]; then EDGE_CACHE_DIR=${HOME:+$HOME/.cache/sagemaker-edge-agent}; fi
if [ -n "$EDGE_CACHE_DIR" ] && mkdir -p "$EDGE_CACHE_DIR" 2>/dev/null && [ -w "$EDGE_CACHE_DIR" ]; then
  CACHE=$EDGE_CACHE_DIR
else
  CACHE=$TOP/build/nuitka/cache
  mkdir -p "$CACHE"
fi
export CCACHE_DIR=$CACHE/ccache CCACHE_MAXSIZE=2G

version() { # the file made by `make binary`, or a new one from git
  [ -f "$TOP/edge/_build.py" ] && sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$TOP/edge/_build.py"
}
