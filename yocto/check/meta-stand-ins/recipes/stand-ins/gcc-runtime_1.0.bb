SUMMARY = "The compiler libraries of the host's cross compiler, so that library dependencies resolve as in a build"
require stand-in.inc

PROVIDES += "virtual/compilerlibs virtual/${TARGET_PREFIX}compilerlibs"

do_install() {
    install -d ${D}${base_libdir}
    cp -L ${STAND_IN_LIBRARIES}/libgcc_s.so.1 ${STAND_IN_LIBRARIES}/libstdc++.so.6 ${D}${base_libdir}/
    chown -R root:root ${D}
}

PACKAGES = "libgcc libstdc++"
FILES:libgcc = "${base_libdir}/libgcc_s.so.1"
FILES:libstdc++ = "${base_libdir}/libstdc++.so.6"
