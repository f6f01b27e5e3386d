# The release tarball, laid out as Edge Manager's.
.PHONY: tarball

tarball: binary ## The release of ARCH: dist/ARCH/<VERSION>.tgz and sha256_hex.shasum
	@ARCH=$(ARCH) packaging/tarball/tarball.sh
