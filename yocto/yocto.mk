# The Yocto layer: see docs/yocto.md.
YOCTO_LAYER := yocto/meta-sagemaker-edge-agent
YOCTO_TOOLS := build/yocto/venv
YOCTO_SERIES := scarthgap wrynose
RELEASES ?= dist

.PHONY: yocto-release yocto-lint yocto-test yocto-check

$(YOCTO_TOOLS)/.ready: yocto/requirements.txt
	@$(PYTHON) -m venv $(YOCTO_TOOLS)
	@$(YOCTO_TOOLS)/bin/python -m pip install -q --disable-pip-version-check -r yocto/requirements.txt
	@touch $@

yocto-release: venv ## The layer brought up to the release tarballs in RELEASES=dist
	@$(PY) -m yocto.demo_package
	@$(PYTHON) yocto/release.py --tarballs $(RELEASES)

# homepageping asks the network; bbclassextend wants native variants, and a released program has none.
yocto-lint: $(YOCTO_TOOLS)/.ready ## Lint the layer for every series that it names
	@for series in $(YOCTO_SERIES); do \
		$(YOCTO_TOOLS)/bin/oelint-adv --quiet --mode all --release $$series --relpaths \
			--suppress oelint.vars.homepageping --suppress oelint.var.bbclassextend \
			$$(find $(YOCTO_LAYER) -name '*.bb' -o -name '*.bbappend' -o -name '*.conf' | sort) || exit 1; done
	@$(PYTHON) yocto/release.py --check

yocto-test: $(VENV)/.tests yocto-lint ## Check the layer without BitBake: sums, do_install on the tarballs, the same tree as the .deb
	@RELEASES=$(abspath $(RELEASES)) $(PY) -m pytest tests/package/test_yocto.py tests/package/test_yocto_gpu.py

yocto-check: ## Run BitBake on the layer: OECORE=… BITBAKE=… name checkouts of one series; STEPS="parse layer package"
	@[ -n "$(OECORE)" ] && [ -n "$(BITBAKE)" ] || { echo 'Name checkouts: make yocto-check OECORE=… BITBAKE=…'; exit 2; }
	@$(PYTHON) yocto/check/check.py --oecore $(OECORE) --bitbake $(BITBAKE) --tarballs $(RELEASES) $(if $(STEPS),--steps $(STEPS))
