# What is made from the sources: one binary for each machine, the release tarball, and the Debian package.
include packaging/nuitka/nuitka.mk packaging/tarball/tarball.mk packaging/greengrass/greengrass.mk
-include packaging/debian/debian.mk
