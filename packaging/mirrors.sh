# Where Debian's packages come from: what this machine's own apt uses, unless the environment says otherwise.
# Sourced; sets MIRROR and SECURITY_MIRROR.
apt_uri() { # the first of apt's repositories whose address ends in /$1; known also before the first `apt-get update`
  apt-get --print-uris update 2>/dev/null | awk -v end="/$1/dists/" '
    !found && (at = index($0, end)) { found = 1; print substr($0, 2, at + length(end) - 9) }'
}
MIRROR=${EDGE_DEBIAN_MIRROR:-$(apt_uri debian)} || MIRROR=
SECURITY_MIRROR=${EDGE_DEBIAN_SECURITY_MIRROR:-$(apt_uri debian-security)} || SECURITY_MIRROR=
if [ -z "$MIRROR" ] || [ -z "$SECURITY_MIRROR" ]; then
  echo "apt on this machine names no Debian mirror: set EDGE_DEBIAN_MIRROR and EDGE_DEBIAN_SECURITY_MIRROR." >&2
  exit 1
fi
