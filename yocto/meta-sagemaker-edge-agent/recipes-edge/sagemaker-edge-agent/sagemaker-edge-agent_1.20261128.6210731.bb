require sagemaker-edge-agent.inc

LIC_FILES_CHKSUM:aarch64 = "file://docs/attributions/agent.txt;md5=3abdbf30b3d332d365e08c98e7f468bb \
                            file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"
LIC_FILES_CHKSUM:x86-64 = "file://docs/attributions/agent.txt;md5=a56d215f2879dbb1ee1d06539c04f3ea \
                           file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"

SRC_URI[arm64.sha256sum] = "b19227c3866bcecfb47a71f3d93202eec6b5f8a9e6631825d3b9660a01812ba3"
SRC_URI[amd64.sha256sum] = "4a5a5a2d9c181a93f1557b780ac15241a7b01075bd69cb5ec61836703b5a3cef"

# What the program brings along is its own business: no other recipe may come to depend on it.
# nooelint: oelint.vars.mispell.unknown - oelint's list lacks this variable of package.bbclass
PRIVATE_LIBS:${PN} = "libLiteRtRuntimeCApi.so \
                      libgcc_s.so.1 \
                      libpywrap_litert_common.so \
                      libsmall_blas.so \
                      libstdc++.so.6"
