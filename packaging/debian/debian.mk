# The Debian package, its repository, and the tests of the installed thing. ARCH is amd64 or arm64.
DEB_VERSION = $(shell cat dist/$(ARCH)/VERSION 2>/dev/null)
RELEASE = dist/$(ARCH)/$(DEB_VERSION).tgz
DEB = dist/$(ARCH)/sagemaker-edge-agent_$(DEB_VERSION)_$(ARCH).deb
DEBS = $(wildcard dist/*/sagemaker-edge-agent_*.deb)

# $(call built,FILE,WHAT,TARGET): says what to build first where FILE is not there.
built = [ -f "$(1)" ] || { echo "There is no $(2) of $(ARCH) in dist/$(ARCH): run 'make $(3) ARCH=$(ARCH)' first." >&2; exit 1; }

.PHONY: deb deb-gpu deb-of-release deb-check apt-repo manuals test-package test-device device-run

deb: ## The Debian package of ARCH, from its release tarball (`make tarball ARCH=...`)
	@[ -e "$(RELEASE)" ] || $(MAKE) tarball ARCH=$(ARCH)
	@$(MAKE) -s deb-of-release ARCH=$(ARCH)

deb-of-release:
	@$(call built,$(RELEASE),release tarball,tarball)
	@PYTHON=$(PYTHON) packaging/debian/build.sh "$(RELEASE)" $(ARCH) dist/$(ARCH)

deb-check: $(VENV)/.tests ## The package of ARCH: what is in it, lintian, and its bytes when built again
	@$(call built,$(DEB),package,deb)
	@EDGE_DEB="$(DEB)" $(PY) -m pytest tests/package/test_deb.py
	@PYTHON=$(PYTHON) packaging/debian/check.sh "$(DEB)" "$(RELEASE)" $(ARCH)

deb-gpu: $(VENV)/.tests ## What adds the GPU to the agent of ARCH: a package, and a tarball of its files
	@$(call built,dist/$(ARCH)/VERSION,release,tarball)
	@PYTHON=$(PY) packaging/debian/gpu.sh $(DEB_VERSION) $(ARCH) dist/$(ARCH)
	@EDGE_GPU_DEB="dist/$(ARCH)/sagemaker-edge-agent-gpu_$(DEB_VERSION)_$(ARCH).deb" $(PY) -m pytest tests/package/test_gpu_deb.py

apt-repo: ## A signed apt repository from the built packages, and the lines a user types
	@packaging/debian/repository.sh dist/apt $(DEBS)

manuals: venv ## The configuration's manual page and docs/configuration.md, from the table of settings
	@$(PY) packaging/man/generate.py

test-package: $(VENV)/.tests ## The installed package under a real systemd, in a container; root
	@$(call built,$(DEB),package,deb)
	@ARCH=$(ARCH) tests/package/device/nspawn.sh "$(DEB)"

test-device: $(VENV)/.tests ## The installed aarch64 package on an emulated machine: Debian's kernel and systemd; root, about 15 minutes
	@$(MAKE) -s device-run ARCH=arm64

device-run:
	@$(call built,$(DEB),package,deb)
	@ARCH=arm64 tests/package/device/qemu.sh "$(DEB)"
