#!/bin/bash
# enter.sh: the compilation, in a mount namespace of its own. Needs ARCH.
. "$(dirname "$0")/lib.sh"
. "$HERE/toolchain.sh"

mkdir -p "$ROOT/opt/cache"
export JOBS=$(nproc)
mount --bind "$CACHE" "$ROOT/opt/cache"
if [ "$ARCH" = "$(dpkg --print-architecture)" ]; then
  # This machine's own kind: only /opt is exchanged, the programs around it stay.
  # The root too, so that it has one name wherever this tree is: compiled objects are then found in the cache again.
  mkdir -p "$ROOT/opt/root"
  mount --bind "$ROOT" "$ROOT/opt/root"
  toolchain "$ROOT/opt/toolchain" /opt/root
  mount --rbind "$ROOT/opt" /opt
  exec /bin/bash /opt/src/compile.sh
fi

# Another kind: Python is emulated, and calls this machine's compilers. No entry in the binfmt table is needed, because
# the only emulated programs that are started by others are Python and ldd, and those are wrapped.
toolchain "$ROOT/opt/toolchain" "" /host
for tool in "$ROOT"/opt/toolchain/*; do ln -sfn "/opt/toolchain/${tool##*/}" "$ROOT/usr/bin/${tool##*/}"; done
ln -sfn /host/usr/bin/patchelf "$ROOT/usr/bin/patchelf"
mkdir -p "$ROOT"/{proc,sys,dev,tmp,root,host/usr}
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --bind /usr "$ROOT/host/usr"
mount -o remount,ro,bind "$ROOT/host/usr"
native=$(dpkg-architecture -qDEB_BUILD_MULTIARCH)
loader=$(readelf -p .interp /usr/bin/dash | sed -n 's/.*] *//p' | tr -d '[:space:]')
mkdir -p "$ROOT/$(dirname "$loader")"
ln -sfn usr/lib "$ROOT/host/lib"
ln -sfn usr/lib64 "$ROOT/host/lib64"
ln -sfn "/host$(readlink -f "$loader" | sed 's,^/lib,/usr/lib,')" "$ROOT$loader"
ln -sfn "/host/usr/lib/$native" "$ROOT/usr/lib/$native"
[ "$ROOT/lib" -ef "$ROOT/usr/lib" ] || ln -sfn "/host/usr/lib/$native" "$ROOT/lib/$native"

qemu=/host$(readlink -f "$(command -v "qemu-$MACHINE-static" || command -v "qemu-$MACHINE")")
wrap() { # PROGRAM COMMAND...
  local file=$ROOT$1
  shift
  printf '#!/host/usr/bin/dash\nexec %s "$@"\n' "$*" >"$file.new" && chmod 755 "$file.new" && mv "$file.new" "$file"
}
python=/opt/python/bin/python3.11
[ -e "$ROOT$python.real" ] || mv "$ROOT$python" "$ROOT$python.real"
wrap $python "$qemu -0 $python $python.real"
target_loader=$(readelf -p .interp "$ROOT$python.real" | sed -n 's/.*] *//p' | tr -d '[:space:]')
wrap /usr/bin/ldd "$qemu $target_loader --list"
# The compiler looks into the interpreter's own file, which is the wrapper now.
readelf=$(readlink "$ROOT/opt/toolchain/readelf") && rm "$ROOT/opt/toolchain/readelf"
cat >"$ROOT/opt/toolchain/readelf" <<EOF
#!/host/usr/bin/dash
[ "\$2" != $python ] || set -- "\$1" $python.real
exec $readelf "\$@"
EOF
chmod 755 "$ROOT/opt/toolchain/readelf"
exec env -i PATH=/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" CCACHE_MAXSIZE="$CCACHE_MAXSIZE" JOBS="$JOBS" \
  /usr/sbin/chroot "$ROOT" /host/usr/bin/dash /opt/src/compile.sh
