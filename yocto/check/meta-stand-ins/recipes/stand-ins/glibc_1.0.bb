SUMMARY = "The C library of the host's cross compiler, so that library dependencies resolve as in a build"
require stand-in.inc

PROVIDES += "virtual/libc"

do_install() {
    install -d ${D}${base_libdir}
    for name in ld-linux libc libm libpthread libdl librt libutil libresolv; do
        cp -L ${STAND_IN_LIBRARIES}/$name[-.]*so.[0-9]* ${D}${base_libdir}/
    done
    chown -R root:root ${D}
}

PACKAGES = "${PN}"
FILES:${PN} = "${base_libdir}"
