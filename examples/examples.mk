# The C++ example. Needs g++, cmake, pkg-config, libgrpc++-dev and protobuf-compiler-grpc.
.PHONY: example example-check

# Says what to install where the tools to build C++ are not there.
cpp_tools = for tool in g++ cmake pkg-config grpc_cpp_plugin protoc; do command -v $$tool >/dev/null || { \
  echo "There is no $$tool: run 'apt-get install g++ cmake pkg-config libgrpc++-dev protobuf-compiler-grpc' as root, then try again." >&2; \
  exit 1; }; done

example: example-check ## Build examples/ipc_example into build/ipc_example
	@$(cpp_tools)
	@cmake -S examples/ipc_example -B build/ipc_example >/dev/null
	@cmake --build build/ipc_example --parallel

example-check: ## The example's proto and picture are what proto/ and draw_street.py say
	@cmp proto/agent.proto examples/ipc_example/sagemaker_edge.proto
	@mkdir -p build && $(PYTHON) examples/draw_street.py build/street_small.bmp
	@cmp build/street_small.bmp examples/ipc_example/street_small.bmp
