#!/bin/sh
# compile.sh: Nuitka itself, where /opt is that of the build root.
set -eu
export PATH=/opt/toolchain:/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 TZ=UTC TMPDIR=/tmp
# What Nuitka itself is made of: little of it is used, and seldom.
export CFLAGS="-Os -ffunction-sections -fdata-sections"
export CC=/opt/toolchain/gcc CXX=/opt/toolchain/g++
export CCACHE_DIR=/opt/cache/ccache NUITKA_CACHE_DIR=/opt/cache/nuitka
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
# Columns of the source in byte code: only a traceback beside that source can show them.
export PYTHONNODEBUGRANGES=1
# Nothing outside needs more than the names that Python's extension modules use: the rest can go.
export LDFLAGS="-Wl,--gc-sections -Wl,--build-id=none -Wl,--version-script=/opt/src/exports.map"
cd /opt/src
set -- "--jobs=$JOBS" --user-plugin=thin.py --output-dir=out --report=out/report.xml agent.py
# By the shell alone: a program of the root, such as its grep, runs only where this machine's binfmt table knows its kind.
while read -r flag; do
  case $flag in --*) set -- "$flag" "$@" ;; esac
done <flags.txt
exec /opt/python/bin/python3.11 -m nuitka "$@"
