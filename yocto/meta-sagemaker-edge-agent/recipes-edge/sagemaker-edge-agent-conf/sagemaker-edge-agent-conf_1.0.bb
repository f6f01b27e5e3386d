SUMMARY = "Configuration and trusted signing roots of the SageMaker Edge agent"
DESCRIPTION = "What a device maker changes: extend this recipe by a bbappend of your own layer, or provide virtual-sagemaker-edge-agent-conf by a recipe of your own."
HOMEPAGE = "https://sagemaker-edge-agent.invalid"
BUGTRACKER = "https://sagemaker-edge-agent.invalid/issues"
SECTION = "utils"
LICENSE = "Apache-2.0"
# nooelint: oelint.var.licenseremotefile - these few files have no upstream archive
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"
CVE_PRODUCT = "sagemaker-edge-agent"

# A bbappend adds the roots whose signatures this device trusts: SRC_URI += "file://my-root.pem;subdir=${BP}"
SRC_URI = "file://config.json;subdir=${BP} \
           file://trust-README;subdir=${BP} \
           "

INHIBIT_DEFAULT_DEPS = "1"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/config.json ${D}${sysconfdir}/sagemaker-edge-agent/config.json
    install -d ${D}${sysconfdir}/sagemaker-edge-agent/models.d
    install -D -m 0644 ${S}/trust-README ${D}${sysconfdir}/sagemaker-edge-agent/trust/README
    for root in ${S}/*.pem; do
        [ ! -e "$root" ] || install -m 0444 "$root" ${D}${sysconfdir}/sagemaker-edge-agent/trust/
    done
}

CONFFILES:${PN} = "${sysconfdir}/sagemaker-edge-agent/config.json"
RPROVIDES:${PN} = "virtual-sagemaker-edge-agent-conf"
