SUMMARY = "A signed demo model for the SageMaker Edge agent"
DESCRIPTION = "A model that reads handwritten digits, as a package signed by a demo root, and pictures to try it on. Nothing trusts that root until your configuration names it."
HOMEPAGE = "https://sagemaker-edge-agent.invalid"
BUGTRACKER = "https://sagemaker-edge-agent.invalid/issues"
SECTION = "utils"
LICENSE = "Apache-2.0"
# nooelint: oelint.var.licenseremotefile - these few files have no upstream archive
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"
CVE_PRODUCT = "sagemaker-edge-agent"

SRC_URI = "file://digits.tar.gz;subdir=${BP};unpack=0 \
           file://demo-root.pem;subdir=${BP} \
           file://pictures;subdir=${BP} \
           "

inherit allarch

INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${datadir}/sagemaker-edge-agent/demo/pictures ${D}${datadir}/sagemaker-edge-agent/demo/trust
    install -m 0644 ${S}/digits.tar.gz ${D}${datadir}/sagemaker-edge-agent/demo/
    install -m 0644 ${S}/pictures/*.bmp ${D}${datadir}/sagemaker-edge-agent/demo/pictures/
    install -m 0444 ${S}/demo-root.pem ${D}${datadir}/sagemaker-edge-agent/demo/trust/
}

FILES:${PN} += "${datadir}/sagemaker-edge-agent/demo"
