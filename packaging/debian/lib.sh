# Shared by the scripts of the Debian package. Sourced.
set -euo pipefail
export LC_ALL=C.UTF-8 TZ=UTC
umask 022

die() { echo "$*" >&2; exit 1; }

# need COMMAND-OR-FILE PACKAGE ...: installs what is missing, or says in one sentence what to install.
need() {
  local missing=()
  while [ $# -gt 1 ]; do
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} = 0 ] && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "${missing[@]}"; } \
      >/dev/null || die "These packages could not be installed: ${missing[*]}"
  else
    die "Missing: run 'apt-get install ${missing[*]}' as root, then try again."
  fi
}
