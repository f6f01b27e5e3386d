#!/bin/bash
# binary.sh: one binary for ARCH, from nothing: dist/$ARCH/sagemaker_edge_agent_binary, with VERSION beside it.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || die "Building needs root, for a chroot and a mount namespace of its own: run 'sudo make binary ARCH=$ARCH'."
OUT=$TOP/dist/$ARCH
TREE=$WORK/tree # the program as it is when unpacked

[ -n "${SKIP_ROOT:-}" ] || { "$HERE/root.sh"; "$HERE/wheels.sh"; }
export PATH=$WORK/toolchain:$PATH
python=$TOP/build/nuitka/tools/bin/python

git() { command git -C "$TOP" -c safe.directory="$TOP" "$@"; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y "$TOP/agent.py")}
if [ -z "${VERSION:-}" ]; then
  VERSION=$(sed -n 's/^MAJOR = //p' "$TOP/edge/version.py").$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d).$(git rev-parse --short=7 HEAD 2>/dev/null || echo 0000000)
fi

source=$ROOT/opt/src
new=$WORK/src
rm -rf "$new" && mkdir -p "$new/out"
(cd "$TOP" && find agent.py edge -name '*.py' ! -name _build.py ! -path '*/__pycache__/*' -print0 | sort -z | tar -c --null -T -) | tar -x -C "$new"
printf '"""Written by the build."""\n\nVERSION = "%s"\nBUILD_DATE = %d\n' "$VERSION" "$SOURCE_DATE_EPOCH" >"$new/edge/_build.py"
cp "$HERE"/{thin.py,packed_code.c,frozen.c,flags.txt,exports.map,compile.sh} "$new/"
key=$( (cd "$new" && find . -type f -print0 | sort -z | xargs -0 sha256sum; cat "$ROOT/opt/python/.key"; ls "$ROOT/opt/python/lib/python3.11/dist-packages"/.ready*) | sha256sum)

if [ "$(cat "$WORK/compiled" 2>/dev/null)" != "$key" ]; then
  step "compile $VERSION"
  rm -rf "$source" "$WORK/compiled" && mv "$new" "$source"
  mkdir -p "$CACHE/nuitka"
  # What follows is seen by this one process tree only: its mounts go when it ends, however it ends. It takes SIGKILL to
  # end it: as the first process of its namespace it is spared the others, and unshare ignores them while it waits.
  unshare --mount --propagation private --pid --fork --kill-child "$HERE/enter.sh" >"$WORK/compile.log" 2>&1 &
  confined=$!
  trap 'kill -KILL "$confined" 2>/dev/null' EXIT
  trap 'exit 143' TERM HUP
  trap 'exit 130' INT
  wait "$confined" || { tail -n 30 "$WORK/compile.log" >&2; die "The compilation failed; all of it is in $WORK/compile.log"; }
  trap - EXIT TERM HUP INT
  cp "$source/out/report.xml" "$WORK/report.xml"
  echo "$key" >"$WORK/compiled"
fi

step "assemble"
rm -rf "$TREE" && cp -r "$source/out/agent.dist" "$TREE"
mv "$TREE/agent.bin" "$TREE/sagemaker_edge_agent"
mkdir "$TREE/ai_edge_litert" && cp "$WORK"/litert/* "$TREE/ai_edge_litert/"
# The compiler's own libraries are those of the old root, also where this machine's newer ones were found first.
for library in libstdc++.so.6 libgcc_s.so.1; do
  rm -f "$TREE/$library"
  cp -L "$ROOT/usr/lib/$TRIPLE/$library" "$TREE/" 2>/dev/null || cp -L "$ROOT/lib/$TRIPLE/$library" "$TREE/"
  strip --strip-unneeded "$TREE/$library"
done
find "$TREE" -type f ! -name sagemaker_edge_agent -exec chmod 644 {} +
"$python" "$HERE/glibc_floor.py" "$TREE" --output "$WORK/glibc.txt"

step "pack"
# What reads bytes from outside before anything is checked: with what the compiler has against mistakes in it.
launcher_flags=(-O2 -Wall -Wextra -Werror -Wformat=2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong)
gcc -static "${launcher_flags[@]}" -Wl,-s -Wl,--build-id=none "-ffile-prefix-map=$HERE=/usr/src/agent" -o "$WORK/launcher" "$HERE/launcher.c" -lzstd
mkdir -p "$OUT"
"$python" "$HERE/pack.py" "$WORK/launcher" "$TREE" "$OUT/sagemaker_edge_agent_binary"
echo "$VERSION" >"$OUT/VERSION"
step "$(du -BM "$OUT/sagemaker_edge_agent_binary" | cut -f1) packed, $(du -BM -s "$TREE" | cut -f1) unpacked: dist/$ARCH/sagemaker_edge_agent_binary"
