#!/bin/bash
# test.sh [PYTEST WORDS]: the system tests against the binary of ARCH, and the layout of its tarball where it is built; on
# this machine's own kind the adversary tests too: how an honest client fares says nothing where everything is emulated.
# MACHINE_TESTS=1 leaves out those that prove the same Python on any machine, which take most of the time under emulation.
# Needs PY, the Python of the tests. AGENT_GPU=1 gives the emulated program a Vulkan in software.
# The other machine's binary runs emulated; the entry that lets the kernel start it is made in a user namespace of its
# own (Linux 6.7 or later), so this machine's binfmt table stays as it is.
. "$(dirname "$0")/lib.sh"

binary=${BINARY:-$TOP/dist/$ARCH/sagemaker_edge_agent_binary}
[ -e "$binary" ] || die "There is no $binary: run 'make binary ARCH=$ARCH' first."
cd "$TOP"
if [ $# = 0 ]; then
  set -- -n "${WORKERS:-$(nproc)}" --dist loadfile tests/system tests/package/test_binary.py tests/package/test_tarball.py
  if [ -n "${MACHINE_TESTS:-}" ]; then
    set -- --maxfail=3 "$@" # emulated, what fails has waited for minutes
    for name in admins adoption capture_kill\* capture_policies captures_\* client cloud_[b-z]\* cloud_addresses demo\* field_files fleet\* \
      greengrass hostile_\* listen_tls managed_faults managed_kill managed_sets metrics model_check model_signing_tool \
      open_inference_clients perf_analyzer readme selftest standard_streams summaries top traces; do
      set -- "$@" "--ignore-glob=tests/system/test_$name.py"
    done
  fi
  [ "$ARCH" != "$(dpkg --print-architecture)" ] || set -- "$@" tests/adversary
fi
export SAGEMAKER_EDGE_UNPACK_DIR=$WORK/unpacked AGENT_COMMAND=$binary RELEASE_ARCH=$ARCH
mkdir -p "$SAGEMAKER_EDGE_UNPACK_DIR" && chmod 700 "$SAGEMAKER_EDGE_UNPACK_DIR"

if [ "$ARCH" = "$(dpkg --print-architecture)" ]; then
  exec "$PY" -m pytest "$@"
fi

need unshare util-linux
. "$HERE/emulator.sh"
emulator
[ "$MACHINE" != aarch64 ] || export QEMU_CPU=cortex-a76 # a board's processor; all that QEMU can do takes longer
# The emulated program gets the C library of the oldest system served, and no other file of that root.
export QEMU_LD_PREFIX=$WORK/libc
rm -rf "$QEMU_LD_PREFIX" && mkdir -p "$QEMU_LD_PREFIX/lib/$TRIPLE"
cp -P "$ROOT"/lib/ld-linux* "$QEMU_LD_PREFIX/lib/"
cp -P "$ROOT/lib/$TRIPLE"/*.so* "$QEMU_LD_PREFIX/lib/$TRIPLE/"
if [ -n "${AGENT_GPU:-}" ]; then
  . "$HERE/swiftshader.sh"
  swiftshader "$QEMU_LD_PREFIX"
fi
export KILL_ROUNDS=${KILL_ROUNDS:-5} KILL_ROUNDS_DRIVER=${KILL_ROUNDS_DRIVER:-2} BACKLOG_CAPTURES=${BACKLOG_CAPTURES:-1000} \
  AGENT_START_SECONDS=300 AGENT_CALL_SECONDS=600 AGENT_EMULATED=1 AGENT_MACHINE=$MACHINE
table=/proc/sys/fs/binfmt_misc
if [ -e "$table/qemu-$MACHINE" ] && grep -q '^enabled' "$table/qemu-$MACHINE" && grep -qx "interpreter $EMULATOR" "$table/qemu-$MACHINE"; then
  exec "$PY" -m pytest "$@"
fi
elf='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
case $MACHINE in aarch64) number='\xb7\x00' ;; x86_64) number='\x3e\x00' ;; esac
entry=":qemu-$MACHINE:M::$elf$number:$mask:$EMULATOR:PF" # P: the program sees the name that it was called by
export ENTRY=$entry
inside='
  set -e
  mount -t binfmt_misc binfmt_misc '$table'
  printf %s "$ENTRY" >'$table'/register || { echo "This kernel has no binfmt table of its own for a user namespace (Linux 6.7 has): install binfmt-support." >&2; exit 1; }
  exec "$@"'
if [ "$(id -u)" != 0 ]; then
  exec unshare --user --map-root-user --mount --propagation private bash -c "$inside" - "$PY" -m pytest "$@"
fi
# For root all users stay what they are, as some tests become another one: this map only root can give, from outside. In the
# background, since what is started there would ignore SIGINT.
outside=$(readlink /proc/self/ns/user)
{
  until [ "$(readlink /proc/$$/ns/user)" != "$outside" ]; do sleep 0.05; done
  echo "0 0 4294967295" >/proc/$$/uid_map
  echo "0 0 4294967295" >/proc/$$/gid_map
} &
# shellcheck disable=SC2016 # for the shell inside
exec unshare --user --mount --propagation private bash -c '
  until [ -n "$(cat /proc/self/gid_map)" ]; do sleep 0.05; done
  exec bash -c "$@"' - "$inside" - "$PY" -m pytest "$@"
