#!/bin/bash
# python.sh: CPython and OpenSSL for the target, compiled from Debian's sources against the old C library.
# Needs ARCH; the target's root is in build/nuitka/$ARCH/root. Leaves an install in $ROOT/opt/python.
. "$(dirname "$0")/lib.sh"
. "$HERE/toolchain.sh"

JOBS=$(nproc)
SOURCES=$TOP/build/nuitka/sources
PYTHON_PREFIX=/opt/python

fetch_sources() {
  # The archive's signed index chooses the version; security updates first, the release itself where those are gone.
  local apt=$SOURCES/apt package version
  mkdir -p "$apt/lists/partial" "$apt/cache"
  [ -f "$SOURCES/.ready" ] && return
  printf 'deb-src [signed-by=%s] %s %s main\n' "$KEYRING" "$SECURITY_MIRROR" $SOURCE_SUITE-security \
    "$KEYRING" "$MIRROR" $SOURCE_SUITE >"$apt/sources.list"
  local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  for package in python3.11 openssl; do
    local found=
    for version in $(apt-cache "${options[@]}" showsrc --only-source $package | sed -n 's/^Version: //p' | sort -rVu); do
      if (cd "$SOURCES" && apt-get "${options[@]}" source "$package=$version" >/dev/null 2>&1); then found=$version; break; fi
    done
    [ -n "$found" ] || die "The sources of $package are in neither $SECURITY_MIRROR nor $MIRROR."
    ln -sfn "$(cd "$SOURCES" && ls -d $package-*/ | head -1)" "$SOURCES/$package"
    echo "$package $found" >>"$SOURCES/versions"
  done
  touch "$SOURCES/.ready"
}

# Sections let the last link drop what nothing calls; hidden symbols keep this OpenSSL apart from those inside wheels.
build_openssl() {
  local out=$WORK/openssl target=linux-$MACHINE
  rm -rf "$out" && mkdir -p "$out" && cd "$out"
  "$SOURCES/openssl/Configure" "$target" --prefix=/opt/openssl --libdir=lib --openssldir=/etc/ssl \
    no-shared no-tests no-engine no-dso no-legacy no-cms no-ts no-srp no-dtls no-cmp no-ct no-comp no-ui-console \
    no-idea no-seed no-camellia no-aria no-bf no-cast no-md4 no-mdc2 no-rc2 no-rc4 no-rmd160 no-siphash no-ocb \
    no-sm2 no-sm3 no-sm4 no-whirlpool no-gost no-ec2m no-des -O2 -fvisibility=hidden -ffunction-sections -fdata-sections \
    "-ffile-prefix-map=$(readlink -f "$SOURCES")=/usr/src" "-ffile-prefix-map=$out=/usr/src/openssl" >configure.log
  make -j"$JOBS" -s build_libs >make.log 2>&1 || { tail -n 20 make.log >&2; exit 1; }
  mkdir -p "$WORK/sysroot/openssl/lib" && cp libssl.a libcrypto.a "$WORK/sysroot/openssl/lib/"
  rm -rf "$WORK/sysroot/openssl/include" && cp -r include "$WORK/sysroot/openssl/include"
  cp -r "$SOURCES/openssl/include/." "$WORK/sysroot/openssl/include/"
  cp -r include/. "$WORK/sysroot/openssl/include/"
}

build_python() {
  local out=$WORK/python source=$SOURCES/python3.11 cross=()
  rm -rf "$out" && mkdir -p "$out" && cd "$out"
  if [ "$ARCH" != "$(dpkg --print-architecture)" ]; then
    cross=(--build="$(dpkg-architecture -qDEB_BUILD_GNU_TYPE)" --host="$TRIPLE" --with-build-python="$BUILD_PYTHON"
      ac_cv_file__dev_ptmx=yes ac_cv_file__dev_ptc=no ac_cv_buggy_getaddrinfo=no ac_cv_aligned_required=no ac_cv_working_tzset=yes
      ac_cv_broken_sem_getvalue=no ac_cv_posix_semaphores_enabled=yes ac_cv_pthread_system_supported=yes
      ac_cv_pthread=yes) # -pthread: Debian's cross compilers drop a -lpthread that only a later archive needs
  fi
  # One static program: modules that nobody here imports are left out, the rest need no files of their own.
  "$source/configure" -q "${cross[@]}" --prefix=$PYTHON_PREFIX --disable-shared --without-ensurepip --disable-test-modules --with-computed-gotos \
    --without-doc-strings --without-readline --with-openssl="$WORK/sysroot/openssl" --with-ssl-default-suites=openssl \
    MODULE_BUILDTYPE=static py_cv_module__bz2=n/a py_cv_module__lzma=n/a py_cv_module__dbm=n/a py_cv_module__gdbm=n/a \
    py_cv_module__sqlite3=n/a py_cv_module__tkinter=n/a py_cv_module__curses=n/a py_cv_module__curses_panel=n/a \
    py_cv_module_nis=n/a py_cv_module_ossaudiodev=n/a py_cv_module_readline=n/a py_cv_module_audioop=n/a \
    py_cv_module__crypt=n/a py_cv_module_spwd=n/a py_cv_module__lsprof=n/a py_cv_module__uuid=n/a \
    py_cv_module__codecs_cn=n/a py_cv_module__codecs_hk=n/a py_cv_module__codecs_iso2022=n/a py_cv_module__codecs_jp=n/a \
    py_cv_module__codecs_kr=n/a py_cv_module__codecs_tw=n/a py_cv_module__multibytecodec=n/a py_cv_module__xxsubinterpreters=n/a \
    OPT="-DNDEBUG" CFLAGS="-O3 -fno-semantic-interposition -ffunction-sections -fdata-sections -ffile-prefix-map=$(readlink -f "$source")=/usr/src/python -ffile-prefix-map=$out=/usr/src/python-build" \
    LDFLAGS="-Wl,--gc-sections" >configure.log 2>&1 || { tail -n 20 configure.log >&2; exit 1; }
  cp Modules/Setup.stdlib Modules/Setup.local
  sed -i '/^\*shared\*/,$d' Modules/Setup.local
  # configure leaves a module out, without a word, when its libraries did not link.
  local module
  for module in _ssl _hashlib zlib; do
    grep -q "^$module " Modules/Setup.local || die "CPython's configure left $module out; $out/config.log says why"
  done
  echo '_ctypes _ctypes/_ctypes.c _ctypes/callbacks.c _ctypes/callproc.c _ctypes/cfield.c _ctypes/stgdict.c -DHAVE_FFI_PREP_CIF_VAR -DHAVE_FFI_PREP_CLOSURE_LOC -DHAVE_FFI_CLOSURE_ALLOC -lffi -ldl' >>Modules/Setup.local
  make -j"$JOBS" -s build_wasm >make.log 2>&1 || { tail -n 20 make.log >&2; exit 1; }
}

# `make install` compiles the whole library to byte code three times; only sources are needed here.
install_python() {
  local out=$WORK/python source=$SOURCES/python3.11 to=$ROOT$PYTHON_PREFIX name config
  rm -rf "$to" && mkdir -p "$to"/{bin,lib/python3.11/lib-dynload,include/python3.11}
  cp -r "$source/Include/." "$out/pyconfig.h" "$to/include/python3.11/"
  (cd "$source/Lib" && tar -c --exclude=test --exclude=tests --exclude=idlelib --exclude=tkinter --exclude=turtledemo \
    --exclude=lib2to3 --exclude=ensurepip --exclude=__pycache__ .) | tar -x -C "$to/lib/python3.11"
  # Codecs whose C part was left out.
  grep -lE '_codecs_|_multibytecodec' "$to"/lib/python3.11/encodings/*.py | xargs rm
  # A cross build names it otherwise than Python looks for it.
  cp "$out"/build/lib.*/_sysconfigdata_*.py "$to/lib/python3.11/_sysconfigdata__$TRIPLE.py"
  config=$to/lib/python3.11/config-3.11-$TRIPLE
  mkdir "$config" && cp "$out/Makefile" "$config/"
  # One archive of everything, so that who links it need not know its parts.
  {
    echo "create $config/libpython3.11.a"
    for part in "$out"/{libpython3.11,Modules/expat/libexpat,Modules/_decimal/libmpdec/libmpdec}.a \
      "$WORK"/sysroot/openssl/lib/lib{ssl,crypto}.a "$ROOT/usr/lib/$TRIPLE"/lib{z,ffi}.a; do echo "addlib $part"; done
    echo save; echo end
  } | ar -M
  strip -o "$to/bin/python3.11" "$out/python"
  mkdir -p "$to/lib/python3.11/dist-packages"
  cp "$SOURCES/versions" "$to/debian-sources"
  for name in python3.11 openssl; do cp "$SOURCES/$name/debian/copyright" "$to/$name.copyright"; done
}

main() {
  mkdir -p "$WORK/sysroot"
  fetch_sources
  key=$( (cat "$HERE"/{toolchain,python}.sh "$SOURCES/versions" "$ROOT/opt/debian-packages"; /usr/bin/gcc --version) | sha256sum | cut -c1-16)
  stored=$CACHE/python-$ARCH-$key.tar.zst
  [ "$(cat "$ROOT$PYTHON_PREFIX/.key" 2>/dev/null)" != "$key" ] || exit 0
  if [ -f "$stored" ]; then
    rm -rf "$ROOT$PYTHON_PREFIX" && tar -C "$ROOT" -I zstd -xf "$stored" && step "CPython and OpenSSL from the cache" && exit 0
  fi
  toolchain "$WORK/toolchain" "$ROOT"
  # A cross build needs the same Python for this machine: the distribution's, or one compiled first.
  BUILD_PYTHON=$(ls /usr/bin/python3.11 2>/dev/null || command -v python3.11 || true)
  native=$(dpkg --print-architecture)
  if [ -z "$BUILD_PYTHON" ] && [ "$ARCH" != "$native" ]; then
    ARCH=$native "$HERE/root.sh"
    BUILD_PYTHON=$TOP/build/nuitka/$native/root/opt/python/bin/python3.11
  fi
  export SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l "$SOURCES/python3.11/debian/changelog" -S Timestamp)
  export PATH=$WORK/toolchain:$PATH CC=$WORK/toolchain/gcc CXX=$WORK/toolchain/g++ AR=ar RANLIB=ranlib READELF=$WORK/toolchain/readelf
  [ -f "$WORK/sysroot/.openssl-$key" ] || { step "OpenSSL"; build_openssl; touch "$WORK/sysroot/.openssl-$key"; }
  step "CPython"; build_python
  install_python
  echo "$key" >"$ROOT$PYTHON_PREFIX/.key"
  tar -C "$ROOT" -I 'zstd -q' -cf "$stored.part" opt/python && mv "$stored.part" "$stored"
  step "CPython and OpenSSL are ready"
}

main
