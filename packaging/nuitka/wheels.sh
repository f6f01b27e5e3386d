#!/bin/bash
# wheels.sh: the locked parts into the root's site-packages, made lean, and LiteRT's library into $WORK/litert. Needs ARCH
# and the root.
. "$(dirname "$0")/lib.sh"
. "$HERE/toolchain.sh"

LOCK=$HERE/requirements-$ARCH.lock
SITE=$ROOT/opt/python/lib/python3.11/dist-packages
LITERT_LOCK=$HERE/litert-$ARCH.lock
key=$(cat "$LOCK" "$LITERT_LOCK" "$0" "$HERE"/{small_blas.c,left_out.py,litert_compat.c,lower_floor.py,glibc_floor.py} | sha256sum | cut -c1-16)
[ ! -f "$SITE/.ready-$key" ] || exit 0

step "wheels"
rm -rf "$SITE" && mkdir -p "$SITE"
tools=$TOP/build/nuitka/tools
python3=$(ls /usr/bin/python3.11 2>/dev/null || command -v python3)
exec 9>"$TOP/build/nuitka/.lock" && flock 9 # the other machine's build shares these tools
[ -x "$tools/bin/pip" ] || "$python3" -m venv "$tools" || die "The venv module is missing: apt-get install python3-venv"
pip=("$tools/bin/pip" --disable-pip-version-check --cache-dir "$CACHE/pip")
grep -E '^(setuptools|wheel)==' "$LOCK" >"$WORK/tools.lock"
"${pip[@]}" -q install --require-hashes --no-deps --only-binary=:all: -r "$WORK/tools.lock" 2>"$WORK/pip.log"

exec 9>&-

# This machine's pip unpacks the target's wheels; two pure Python projects publish sources only.
platforms=()
for floor in 2014 _2_17 _2_26 _2_27 _2_28 _2_31 _2_34; do platforms+=(--platform "manylinux${floor}_$MACHINE"); done
grep -E '^(sdnotify|nuitka)==' "$LOCK" >"$WORK/sources.lock"
grep -vE '^(sdnotify|nuitka|setuptools|wheel)==' "$LOCK" >"$WORK/wheels.lock"
target=(--only-binary=:all: "${platforms[@]}" --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
"${pip[@]}" -q install --require-hashes --no-deps --no-compile "${target[@]}" --target "$SITE" -r "$WORK/wheels.lock" 2>"$WORK/pip.log" || { tail -n 20 "$WORK/pip.log" >&2; exit 1; }
"${pip[@]}" -q install --require-hashes --no-deps --no-compile --no-build-isolation --no-binary=:all: \
  --target "$WORK/pure" --upgrade -r "$WORK/sources.lock" 2>"$WORK/pip.log" || { tail -n 20 "$WORK/pip.log" >&2; exit 1; }
cp -r "$WORK/pure/." "$SITE/" && rm -rf "$WORK/pure"

step "without what the agent does not use"
toolchain "$WORK/toolchain" "$ROOT"
export PATH=$WORK/toolchain:$PATH
flags=(-O2 -fPIC -shared -ffunction-sections -fdata-sections -Wl,--gc-sections -Wl,-s -Wl,--build-id=none "-ffile-prefix-map=$HERE=/usr/src/agent")
# Before any patchelf: what it has changed, strip would break.
find "$SITE" -name '*.so*' -type f -exec strip --strip-unneeded {} +
# numpy without OpenBLAS and LAPACK: see docs/adr/0015.
gcc "${flags[@]}" -Wl,-soname,libsmall_blas.so -o "$SITE/numpy/core/libsmall_blas.so" "$HERE/small_blas.c"
for extension in "$SITE"/numpy/core/_multiarray_umath*.so; do
  patchelf --replace-needed "$(patchelf --print-needed "$extension" | grep openblas)" libsmall_blas.so --set-rpath '$ORIGIN' "$extension"
done
rm -r "$SITE/numpy.libs" "$SITE"/numpy/linalg/_umath_linalg*.so "$SITE"/numpy/linalg/lapack_lite*.so
cp "$HERE/left_out.py" "$SITE/numpy/linalg/_umath_linalg.py"
for part in random fft polynomial ma; do
  rm -r "$SITE/numpy/$part" && mkdir "$SITE/numpy/$part" && cp "$HERE/left_out.py" "$SITE/numpy/$part/__init__.py"
done
# Docstrings that numpy would attach to its C functions at each start.
for part in _add_newdocs _add_newdocs_scalars; do : >"$SITE/numpy/core/$part.py"; done
# gRPC for asyncio, which would load asyncio at every start: a sixth of an idle agent's memory.
for part in "$SITE/grpc/aio" "$SITE/../asyncio"; do
  rm -rf "$part" && mkdir "$part" && cp "$HERE/left_out.py" "$part/__init__.py"
done
# Protobuf in Python alone, which is loaded beside the one in C, and typing's additions, of which gRPC takes one.
cp "$HERE/left_out.py" "$SITE/google/protobuf/internal/python_message.py"
{ cat "$HERE/left_out.py"; printf '\n\ndef override(method: object) -> object:\n    return method\n'; } >"$SITE/typing_extensions.py"
# dataclasses loads inspect, ast and dis to write a docstring with the signature for each class that has none.
sed -i -e '/^import inspect$/d' -e "s/str(inspect.signature(cls)).replace(' -> None', '')/''/" "$SITE/../dataclasses.py"
! grep -q inspect "$SITE/../dataclasses.py" || die "This dataclasses.py uses inspect for something else: see wheels.sh"
# Code pages of DOS, EBCDIC and old Macs: no locale has one, and what Python's own start may need cannot be packed.
(cd "$SITE/../encodings" && rm -f mac_*.py cp{037,273,424,500,720,737,775,875,1006,1026,1140}.py cp8[56]*.py hp_roman8.py)
# frozen.c has these in their place.
objcopy -W _Py_Deepfreeze_Init -W _Py_Deepfreeze_Fini -W _PyImport_FrozenStdlib -W _PyImport_FrozenTest \
  "$SITE"/../config-3.11-*/libpython3.11.a

# LiteRT's own library, of a later release than the interpreter beside it, and nothing else of that release's wheel.
litert=$WORK/litert
rm -rf "$litert" && mkdir "$litert"
"${pip[@]}" -q download --require-hashes --no-deps "${target[@]}" --dest "$WORK/litert.wheel" -r "$LITERT_LOCK" 2>"$WORK/pip.log" || { tail -n 20 "$WORK/pip.log" >&2; exit 1; }
"$tools/bin/python" -m zipfile -e "$WORK"/litert.wheel/*.whl "$WORK/litert.wheel/out"
library=$litert/libLiteRt.so.$(sed -n 's/^ai-edge-litert==\([^ ]*\).*/\1/p' "$LITERT_LOCK")
mv "$WORK/litert.wheel/out/ai_edge_litert/libLiteRt.so" "$WORK/litert.wheel/whole"
strip --strip-unneeded "$WORK/litert.wheel/whole"
freed=$("$tools/bin/python" "$HERE/lower_floor.py" "$WORK/litert.wheel/whole" "$library" 2.31 3.4.28)
if [ -n "$freed" ]; then # aarch64's is linked with a later C library
  gcc "${flags[@]}" -Wl,-soname,libLiteRtCompat.so -Wl,--no-as-needed -o "$litert/libLiteRtCompat.so" "$HERE/litert_compat.c" -lpthread -ldl
  patchelf --add-needed libLiteRtCompat.so "$library"
fi
patchelf --set-rpath '$ORIGIN:$ORIGIN/..' "$library"
rm -r "$WORK/litert.wheel"
touch "$SITE/.ready-$key"
