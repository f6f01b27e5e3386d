# A Vulkan in software for the other machine's program in tests. Sourced after lib.sh.

swiftshader() { # PREFIX: puts SwiftShader of Debian's chromium-common for MACHINE below it, with the C library it was built for,
  # and LiteRT's library for the GPU
  local work=$WORK/swiftshader addon package
  addon=$(ls "$TOP/dist/$ARCH"/sagemaker-edge-agent-gpu-*.tgz 2>/dev/null) || die "There is no library for the GPU in dist/$ARCH: run 'make deb-gpu ARCH=$ARCH' first."
  rm -rf "$work" && mkdir -p "$work"/{lists,cache/archives}/partial "$work/empty"
  echo "deb [signed-by=$KEYRING] $MIRROR $SOURCE_SUITE main" >"$work/sources.list"
  echo "deb [signed-by=$KEYRING] $SECURITY_MIRROR $SOURCE_SUITE-security main" >>"$work/sources.list"
  cat >"$work/apt.conf" <<END
APT::Architecture "$ARCH"; APT::Architectures { "$ARCH"; }; APT::Sandbox::User "root"; Acquire::Languages "none";
Dir::Etc::SourceList "$work/sources.list"; Dir::Etc::SourceParts "$work/empty"; Dir::State::Status "/dev/null";
Dir::State::Lists "$work/lists"; Dir::Cache "$work/cache";
END
  step "SwiftShader from Debian's chromium-common"
  (export APT_CONFIG=$work/apt.conf && cd "$work" && apt-get -qq update && apt-get -qq download chromium-common libc6 libgcc-s1) >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" >&2; die "SwiftShader could not be fetched."; }
  for package in libc6 libgcc-s1; do dpkg-deb --fsys-tarfile "$work/$package"_*.deb | tar -x -C "$1" ./lib; done
  dpkg-deb --fsys-tarfile "$work"/chromium-common_*.deb | tar -x -C "$1" --wildcards './usr/lib/chromium/*vulkan*' './usr/lib/chromium/*vk_swiftshader*'
  tar -xzf "$addon" -C "$1"
  rm -rf "$work"
}
