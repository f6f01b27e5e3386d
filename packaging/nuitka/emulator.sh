# Which QEMU runs the other machine's program in tests. Sourced after lib.sh.
# LiteRT's library for aarch64 crashes in QEMU 7.2, which Debian 12 has, and runs in QEMU 10, which its backports have: only the
# one program is taken from there, and nothing is installed.
OLDEST_QEMU=10

qemu_release() { "$1" --version 2>/dev/null | sed -n '1s/.* version \([0-9]*\)\..*/\1/p'; }

new_enough() { [ -x "$1" ] && [ "$(qemu_release "$1")" -ge "$OLDEST_QEMU" ] 2>/dev/null; }

backported() { # FILE: fetches it
  local work=$WORK/qemu
  rm -rf "$work" && mkdir -p "$work"/{lists,cache/archives}/partial "$work/empty" "$(dirname "$1")"
  local suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-none}-backports")
  echo "deb [signed-by=$KEYRING] $MIRROR $suite main" >"$work/sources.list"
  local apt=(apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts="$work/empty" \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
  (cd "$work" && "${apt[@]}" update && "${apt[@]}" download qemu-user) >"$work/log" 2>&1 || return 1
  dpkg-deb --fsys-tarfile "$work"/qemu-user_*.deb | tar -x -C "$work" "./usr/bin/qemu-$MACHINE" || return 1
  mv "$work/usr/bin/qemu-$MACHINE" "$1.part" && mv "$1.part" "$1" && rm -rf "$work"
}

emulator() { # sets EMULATOR, and AGENT_OLD_EMULATOR where only an old one is to be had
  for EMULATOR in "/usr/bin/qemu-$MACHINE-static" "/usr/bin/qemu-$MACHINE" "$CACHE/qemu-$OLDEST_QEMU/qemu-$MACHINE"; do
    if new_enough "$EMULATOR"; then return; fi
  done
  step "QEMU $OLDEST_QEMU from Debian's backports"
  if backported "$EMULATOR" && new_enough "$EMULATOR"; then return; fi
  step "QEMU $OLDEST_QEMU cannot be had: an older one runs the tests, in which the interpreter serves every model"
  EMULATOR=/usr/bin/qemu-$MACHINE-static
  need "$EMULATOR" qemu-user-static
  export AGENT_OLD_EMULATOR=1
}
