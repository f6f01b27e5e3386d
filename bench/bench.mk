# Benchmarks. `bench` needs what the C++ example needs: g++, cmake, pkg-config, libgrpc++-dev, protobuf-compiler-grpc.
.PHONY: bench bench-inference bench-compare bench-build bench-cloud bench-link bench-engines bench-peers bench-spool bench-swap soak

ROUNDS ?= 7
BASE ?= HEAD
LINK_BATCHES ?= 1000
SOAK_CALLS ?= 1000000
SWAP_MODEL ?= tiny
SWAP_CLIENTS ?= 8

bench: bench-build ## Predict against its floor, one run of interleaved rounds (ROUNDS=7); writes bench/REPORT.md
	@$(PY) -m bench.run --rounds $(ROUNDS)

bench-compare: bench-build ## This tree beside revision BASE (default: HEAD), by turns: what a change costs (ROUNDS=7)
	@$(PY) -m bench.compare $(BASE) --rounds $(ROUNDS)

bench-inference: venv ## ModelInfer beside Predict, tiny and 12.6 MB by shared memory, by turns
	@$(PY) -m bench.models >/dev/null
	@$(PY) -m bench.inference

bench-build: venv
	@$(cpp_tools)
	@cmake -S bench/loadgen -B build/bench >/dev/null
	@cmake --build build/bench --parallel --target loadgen echo_server >/dev/null
	@$(PY) -m bench.models >/dev/null

bench-engines: venv ## The engines that can be chosen, each in an environment of its own (build/engines)
	@$(PY) -m bench.engines

bench-peers: $(VENV)/.tests bench-build ## MLServer's and KServe's ModelInfer beside the agent's and a floor in C++, each in an environment of its own (build/peers; ROUNDS=7)
	@$(PY) -m bench.peers --rounds $(ROUNDS)

bench-swap: bench-build ## What Predict costs while its model is replaced: p99 with and without (SWAP_MODEL=tiny SWAP_CLIENTS=8)
	@$(PY) -m bench.swap --model $(SWAP_MODEL) --clients $(SWAP_CLIENTS)

soak: bench-build ## A million Predicts by clients that come and go (SOAK_CALLS=1000000): memory, files, attachments
	@$(PY) -m bench.soak --calls $(SOAK_CALLS)

bench-spool: venv ## What captures cost: bytes written, fsyncs, captures a second (bytes by device need root)
	@$(PY) -m bench.spool --paced

bench-cloud: $(VENV)/.tests ## What uploads cost: memory and time to drain a backlog into rclone serve s3, beside boto3
	@$(PY) -m bench.cloud

bench-link: $(VENV)/.tests ## How many connections gain over a slow link: small batches over 100 ms, by 1 and by 4 (LINK_BATCHES=1000)
	@$(PY) -m bench.link --batches $(LINK_BATCHES)
