SUMMARY = "The accounts that useradd needs to start from; with them, empty packages that ours name as dependencies"
require stand-in.inc

STAND_INS = "base-files busybox ca-certificates ptest-runner shadow vulkan-loader"
PROVIDES += "${STAND_INS} shadow-sysroot"

do_install() {
    install -d ${D}${sysconfdir}
    echo "root:x:0:0:root:/root:/bin/sh" > ${D}${sysconfdir}/passwd
    printf 'root:x:0:\nmail:x:8:\n' > ${D}${sysconfdir}/group
    printf 'SYS_UID_MIN 101\nSYS_UID_MAX 999\nSYS_GID_MIN 101\nSYS_GID_MAX 999\n' > ${D}${sysconfdir}/login.defs
    chown -R root:root ${D}
}

SYSROOT_DIRS += "${sysconfdir}"

PACKAGES = "${STAND_INS} ${PN}"
FILES:${PN} = "${sysconfdir}"
RPROVIDES:busybox = "/bin/sh"

python () {
    for package in d.getVar("STAND_INS").split():
        d.setVar("ALLOW_EMPTY:" + package, "1")
        d.setVar("FILES:" + package, "")
}
