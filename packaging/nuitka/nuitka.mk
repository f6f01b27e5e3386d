# The binary. ARCH is amd64 or arm64; either is built on either.
.PHONY: binary binary-lock test-launcher test-binary test-arm64 test-arm64-machine test-arm64-gpu footprint reproducible

binary: ## One binary for ARCH (amd64, arm64) into dist/ARCH; root
	@ARCH=$(ARCH) packaging/nuitka/binary.sh

binary-lock: venv ## The hashes of what goes into the binary, after a change of versions
	@$(PY) packaging/nuitka/lock.py

test-launcher: $(VENV)/.tests ## The one-file program's launcher under the address and undefined-behaviour sanitizers; gcc, zstd, libzstd-dev
	@CFLAGS="-g -O1 -U_FORTIFY_SOURCE -fsanitize=address,undefined -fno-sanitize-recover=all" $(PY) -m pytest tests/unit/test_launcher.py

test-binary: $(VENV)/.tests ## The system and adversary tests against the amd64 binary
	@ARCH=amd64 PY=$(PY) packaging/nuitka/test.sh $(TESTS)

test-arm64: $(VENV)/.tests ## The system tests against the aarch64 binary, emulated; root
	@ARCH=arm64 PY=$(PY) packaging/nuitka/test.sh $(TESTS)

test-arm64-machine: $(VENV)/.tests ## Those of them that another machine may make a difference to; what CI runs
	@ARCH=arm64 PY=$(PY) MACHINE_TESTS=1 packaging/nuitka/test.sh

test-arm64-gpu: $(VENV)/.tests ## A model on the GPU by the aarch64 binary: SwiftShader, emulated; after `make deb-gpu ARCH=arm64`; root
	@ARCH=arm64 PY=$(PY) AGENT_GPU=1 packaging/nuitka/test.sh tests/system/test_gpu.py -k on_the_gpu_as_on_the_cpu

footprint: $(VENV)/.tests ## Measure the binaries anew: docs/footprint.md
	@$(PY) packaging/nuitka/footprint.py

reproducible: ## Build the tarball of ARCH twice and compare
	@ARCH=$(ARCH) packaging/tarball/reproducible.sh
