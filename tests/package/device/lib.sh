# Shared by the runners of the installed-package tests. Sourced with ARCH set (amd64 or arm64).
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$HERE/../../.." && pwd)
. "$TOP/packaging/debian/lib.sh"
case ${ARCH:?set ARCH to amd64 or arm64} in
  amd64) MACHINE=x86_64 ;;
  arm64) MACHINE=aarch64 ;;
  *) echo "ARCH is amd64 or arm64, not '$ARCH'" >&2; exit 1 ;;
esac
SUITE=bookworm
. "$TOP/packaging/mirrors.sh"
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
WORK=$TOP/build/device/$ARCH
mkdir -p "$WORK"

step() { echo "[$ARCH +${SECONDS}s] $*" >&2; }

# The cache is a help, never a need: without it everything is fetched again.
if [ -z "${EDGE_CACHE_DIR+set}" ]; then EDGE_CACHE_DIR=${HOME:+$HOME/.cache/sagemaker-edge-agent}; fi
if [ -n "$EDGE_CACHE_DIR" ] && mkdir -p "$EDGE_CACHE_DIR/device" 2>/dev/null && [ -w "$EDGE_CACHE_DIR/device" ]; then
  CACHE=$EDGE_CACHE_DIR/device
else
  CACHE=$TOP/build/device/cache
  mkdir -p "$CACHE"
fi
