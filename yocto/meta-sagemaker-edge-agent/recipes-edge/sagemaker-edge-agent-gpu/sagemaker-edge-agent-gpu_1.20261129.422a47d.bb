require sagemaker-edge-agent-gpu.inc

LIC_FILES_CHKSUM = "file://usr/share/doc/sagemaker-edge-agent-gpu/LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    file://usr/share/doc/sagemaker-edge-agent-gpu/copyright;md5=0fad454b7ca45eaa6938a6cab956179e"

SRC_URI[arm64.sha256sum] = "5375613a47b83ba6f6a0467cdf21260afa165e2e69989f7c2e53f762200583b2"
SRC_URI[amd64.sha256sum] = "d87bd025966c5165aaf0a20243e797a24d9f271c193e566c420b9ca38a78db7a"
