require sagemaker-edge-agent.inc

LIC_FILES_CHKSUM:aarch64 = "file://docs/attributions/agent.txt;md5=3abdbf30b3d332d365e08c98e7f468bb \
                            file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"
LIC_FILES_CHKSUM:x86-64 = "file://docs/attributions/agent.txt;md5=a56d215f2879dbb1ee1d06539c04f3ea \
                           file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"

SRC_URI[arm64.sha256sum] = "a4873a6e490b30ab00db30a058c6a1985fcfbd2b1078732ac1d599684116a087"
SRC_URI[amd64.sha256sum] = "250e5651c833675ec9a65b85486f0b167ed68c1a09938687f1c41127a26adb69"

# What the program brings along is its own business: no other recipe may come to depend on it.
# nooelint: oelint.vars.mispell.unknown - oelint's list lacks this variable of package.bbclass
PRIVATE_LIBS:${PN} = "libLiteRtRuntimeCApi.so \
                      libgcc_s.so.1 \
                      libpywrap_litert_common.so \
                      libsmall_blas.so \
                      libstdc++.so.6"
