require sagemaker-edge-agent.inc

LIC_FILES_CHKSUM:aarch64 = "file://docs/attributions/agent.txt;md5=3abdbf30b3d332d365e08c98e7f468bb \
                            file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"
LIC_FILES_CHKSUM:x86-64 = "file://docs/attributions/agent.txt;md5=a56d215f2879dbb1ee1d06539c04f3ea \
                           file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"

SRC_URI[arm64.sha256sum] = "04b108d08fe1fb575c4cec1d2c52302118b2c47675430670f95871acc7ebee0c"
SRC_URI[amd64.sha256sum] = "e516aef8879d0dc6e149ab12fc47342786cb856c5d17b217a44decc4d360948e"

# What the program brings along is its own business: no other recipe may come to depend on it.
# nooelint: oelint.vars.mispell.unknown - oelint's list lacks this variable of package.bbclass
PRIVATE_LIBS:${PN} = "libLiteRtRuntimeCApi.so \
                      libgcc_s.so.1 \
                      libpywrap_litert_common.so \
                      libsmall_blas.so \
                      libstdc++.so.6"
