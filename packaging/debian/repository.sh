#!/bin/bash
# A signed apt repository out of packages, and the lines that a user of it types.
#
#   repository.sh OUT DEB...
#
# EDGE_APT_KEY names the secret key to sign with (in GNUPGHOME). Without it a key is made for this repository and kept in
# EDGE_APT_HOME (build/apt-key), good for tests. EDGE_APT_URL is where the repository will be found; default: file:OUT.
. "$(dirname "$0")/lib.sh"
OUT=$(realpath -m "$1")
shift
TOP=$(cd "$(dirname "$0")/../.." && pwd)
NAME=sagemaker-edge-agent
[ $# -gt 0 ] || die "There is no package in dist/: run 'make deb ARCH=arm64' (or amd64) first."
need apt-ftparchive apt-utils gpg gnupg

if [ -z "${EDGE_APT_KEY:-}" ]; then
  export GNUPGHOME=${EDGE_APT_HOME:-$TOP/build/apt-key}
  mkdir -p -m 0700 "$GNUPGHOME"
  EDGE_APT_KEY=$(gpg --batch --with-colons --list-secret-keys 2>/dev/null | awk -F: '/^fpr/ { print $10; exit }')
  if [ -z "$EDGE_APT_KEY" ]; then
    gpg --batch --quiet --passphrase '' --quick-generate-key "$NAME repository (made by make apt-repo)" ed25519 sign never
    EDGE_APT_KEY=$(gpg --batch --with-colons --list-secret-keys | awk -F: '/^fpr/ { print $10; exit }')
  fi
fi

rm -rf "$OUT"
mkdir -p "$OUT/pool/main"
cp "$@" "$OUT/pool/main/"
cd "$OUT"
for arch in amd64 arm64; do
  index=dists/stable/main/binary-$arch
  mkdir -p "$index"
  apt-ftparchive --arch "$arch" packages pool >"$index/Packages"
  gzip -9nk "$index/Packages"
done
apt-ftparchive -o "APT::FTPArchive::Release::Origin=$NAME" -o "APT::FTPArchive::Release::Label=$NAME" \
  -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
  -o APT::FTPArchive::Release::Components=main -o 'APT::FTPArchive::Release::Architectures=amd64 arm64' \
  release dists/stable >Release.new
mv Release.new dists/stable/Release
gpg --batch --yes --quiet --no-auto-check-trustdb --local-user "$EDGE_APT_KEY" --clearsign --output dists/stable/InRelease dists/stable/Release
gpg --batch --yes --quiet --no-auto-check-trustdb --local-user "$EDGE_APT_KEY" --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
gpg --batch --yes --quiet --no-auto-check-trustdb --export --output "$NAME.gpg" "$EDGE_APT_KEY"
gpgconf --kill gpg-agent 2>/dev/null || true

URL=${EDGE_APT_URL:-file:$OUT}
FETCH="sudo curl -fsSL $URL/$NAME.gpg -o"
case $URL in file:*) FETCH="sudo cp ${URL#file:}/$NAME.gpg" ;; esac
cat <<EOF
$OUT, signed by $EDGE_APT_KEY. On a device:

  $FETCH /usr/share/keyrings/$NAME.gpg
  echo "deb [signed-by=/usr/share/keyrings/$NAME.gpg] $URL stable main" | sudo tee /etc/apt/sources.list.d/$NAME.list
  sudo apt-get update && sudo apt-get install $NAME
EOF
