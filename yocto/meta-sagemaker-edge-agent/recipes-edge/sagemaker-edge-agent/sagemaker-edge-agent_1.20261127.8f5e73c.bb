require sagemaker-edge-agent.inc

LIC_FILES_CHKSUM:aarch64 = "file://docs/attributions/agent.txt;md5=3abdbf30b3d332d365e08c98e7f468bb \
                            file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"
LIC_FILES_CHKSUM:x86-64 = "file://docs/attributions/agent.txt;md5=a56d215f2879dbb1ee1d06539c04f3ea \
                           file://docs/attributions/core.txt;md5=25a1de3ed2de52cc64ea82ef2d0775fe"

SRC_URI[arm64.sha256sum] = "415b3913ac8f661ac5d1ee6d8a823ee9a83f83d44ef23b2129a66f675bae9db3"
SRC_URI[amd64.sha256sum] = "03fb60c6601e71bbf5794cb00088d0d90fe520f9814aa33b0dc1e5e89b5c3f5a"

# What the program brings along is its own business: no other recipe may come to depend on it.
# nooelint: oelint.vars.mispell.unknown - oelint's list lacks this variable of package.bbclass
PRIVATE_LIBS:${PN} = "libLiteRtRuntimeCApi.so \
                      libgcc_s.so.1 \
                      libpywrap_litert_common.so \
                      libsmall_blas.so \
                      libstdc++.so.6"
