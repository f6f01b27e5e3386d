#!/bin/bash
# root.sh: the target's build root, unpacked from Debian's packages without running one of their scripts,
# with CPython in /opt/python and the locked wheels in its site-packages. Needs ARCH.
. "$(dirname "$0")/lib.sh"

need mmdebstrap mmdebstrap "$KEYRING" debian-archive-keyring ccache ccache gcc gcc g++ g++ make make perl perl \
  dpkg-source dpkg-dev zstd zstd xz xz-utils patchelf patchelf dash dash unshare util-linux
if [ "$ARCH" != "$(dpkg --print-architecture)" ]; then
  need "/usr/bin/$TRIPLE-gcc" "gcc-${TRIPLE/_/-}" "/usr/bin/$TRIPLE-g++" "g++-${TRIPLE/_/-}" "/usr/bin/qemu-$MACHINE-static" qemu-user-static
fi

packages=base-files,bash,coreutils,dash,file,grep,libc-bin,libc6-dev,libffi-dev,libgcc-s1,libstdc++6,libzstd-dev,linux-libc-dev,sed,zlib1g-dev
stamp=$ROOT/.unpacked-$(echo "1 $SUITE $packages $MIRROR" | sha256sum | cut -c1-12)
if [ ! -f "$stamp" ]; then
  step "Debian $SUITE for $ARCH"
  rm -rf "$ROOT" && mkdir -p "$WORK" "$CACHE/debs-$ARCH"
  # Packages are kept between builds; apt checks them against the signed index each time.
  debs=$CACHE/debs-$ARCH archives=$ROOT/var/cache/apt/archives
  mmdebstrap -q --variant=extract --arch="$ARCH" --include=$packages --keyring="$KEYRING" \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
    --setup-hook="find $debs -name '*.deb' -exec cp -t \"\$1/var/cache/apt/archives\" {} +" \
    --skip=download/empty --skip=essential/unlink --skip=cleanup/apt \
    $SUITE "$ROOT" "deb $MIRROR $SUITE main" 2>"$WORK/mmdebstrap.log" || { tail -n 5 "$WORK/mmdebstrap.log" >&2; exit 1; }
  find "$archives" -name '*.deb' -exec cp -u -t "$debs" {} +
  mkdir -p "$ROOT/opt"
  for deb in "$archives"/*.deb; do dpkg-deb -f "$deb" Package Version Architecture | awk '{print $2}' | paste -sd' '; done | sort >"$ROOT/opt/debian-packages"
  rm -rf "$archives" "$ROOT"/var/lib/apt/lists/*
  # Links that start at / would leave the root when this machine's compiler follows them.
  find "$ROOT" -xdev -type l -lname '/*' -path '*/lib*' | while read -r link; do
    target=$ROOT$(readlink "$link")
    [ ! -e "$target" ] || ln -srfn "$target" "$link"
  done
  # zlib and libffi become part of the program.
  rm -f "$ROOT/usr/lib/$TRIPLE/"lib{z,ffi,zstd}.so
  touch "$stamp"
fi
"$HERE/python.sh"
