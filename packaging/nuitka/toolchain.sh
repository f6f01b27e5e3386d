# Wrappers around this machine's own compilers that see the target root's headers and libraries alone.
# toolchain DIRECTORY SYSROOT [PREFIX]: PREFIX is where this machine's /usr is seen by who calls them.
toolchain() {
  local dir=$1 sysroot=$2 prefix=${3:-} tool real include
  mkdir -p "$dir"
  for tool in gcc g++; do
    if [ "$(dpkg --print-architecture)" = "$ARCH" ]; then real=/usr/bin/$tool; else real=/usr/bin/$TRIPLE-$tool; fi
    include=$("$real" -print-file-name=include)
    cat >"$dir/$tool" <<EOF
#!$prefix/usr/bin/dash
exec $prefix/usr/bin/ccache $prefix$(readlink -f "$real") --sysroot=$sysroot/ -nostdinc -isystem $prefix$include \\
  -isystem $sysroot/usr/include/$TRIPLE -isystem $sysroot/usr/include \\
  -B$sysroot/usr/lib/$TRIPLE/ -L$sysroot/usr/lib/$TRIPLE "\$@"
EOF
    chmod 755 "$dir/$tool"
  done
  ln -sf gcc "$dir/cc"
  for tool in ar as ld nm objcopy objdump ranlib readelf strip; do
    real=/usr/bin/$TRIPLE-$tool
    [ -e "$real" ] || real=/usr/bin/$tool
    ln -sfn "$prefix$(readlink -f "$real")" "$dir/$tool"
  done
}
