# The C++ example. Needs g++, cmake, pkg-config, libgrpc++-dev and protobuf-compiler-grpc.
.PHONY: example example-check

example: example-check ## Build examples/ipc_example into build/ipc_example
	@cmake -S examples/ipc_example -B build/ipc_example >/dev/null
	@cmake --build build/ipc_example --parallel

example-check: ## The example's proto and picture are what proto/ and draw_street.py say
	@cmp proto/agent.proto examples/ipc_example/sagemaker_edge.proto
	@mkdir -p build && $(PYTHON) examples/draw_street.py build/street_small.bmp
	@cmp build/street_small.bmp examples/ipc_example/street_small.bmp
