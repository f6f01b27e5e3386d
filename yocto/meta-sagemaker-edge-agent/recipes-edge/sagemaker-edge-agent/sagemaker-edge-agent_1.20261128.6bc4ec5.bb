require sagemaker-edge-agent.inc

LIC_FILES_CHKSUM:aarch64 = "file://docs/attributions/agent.txt;md5=3abdbf30b3d332d365e08c98e7f468bb \
                            file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"
LIC_FILES_CHKSUM:x86-64 = "file://docs/attributions/agent.txt;md5=a56d215f2879dbb1ee1d06539c04f3ea \
                           file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"

SRC_URI[arm64.sha256sum] = "8132380114f3e1b8b2a98596dd5bf9d788d12c1edc5a1f729dfb1db92cbe9619"
SRC_URI[amd64.sha256sum] = "a5b4d76c467247e423aaf0a0308c46b8fe49702b5b1c2f36b41ab3c7fe92e52d"

# What the program brings along is its own business: no other recipe may come to depend on it.
# nooelint: oelint.vars.mispell.unknown - oelint's list lacks this variable of package.bbclass
PRIVATE_LIBS:${PN} = "libLiteRtRuntimeCApi.so \
                      libgcc_s.so.1 \
                      libpywrap_litert_common.so \
                      libsmall_blas.so \
                      libstdc++.so.6"
