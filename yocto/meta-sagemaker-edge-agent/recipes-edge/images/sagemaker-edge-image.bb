# nooelint: oelint.var.suggestedvar.CVE_PRODUCT - an image is no product with CVEs of its own
SUMMARY = "Example image: a small system with the SageMaker Edge agent"
DESCRIPTION = "Boots to the agent, its demo model and an SSH server. Copy it to your own layer and change it."
HOMEPAGE = "https://sagemaker-edge-agent.invalid"
BUGTRACKER = "https://sagemaker-edge-agent.invalid/issues"
SECTION = "images"
LICENSE = "Apache-2.0"

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "systemd"

IMAGE_FEATURES += "ssh-server-openssh"

IMAGE_INSTALL = "packagegroup-core-boot \
                 sagemaker-edge-agent \
                 sagemaker-edge-agent-demo \
                 ${CORE_IMAGE_EXTRA_INSTALL} \
                 "
