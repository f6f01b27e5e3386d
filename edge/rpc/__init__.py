"""The gRPC side of the agent."""

import os

# gRPC's "event engine" reads sockets on threads of its own and hands each event over to the one that waits for it: two
# thirds of what an empty call cost. Without it for the listener, the waiting thread reads the socket itself. gRPC looks
# at the variable once, when it is first used; a version that no longer knows the name ignores it. ADR 7 has figures.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

# gRPC's own log goes past ours to stderr, with a peer's words in it as they are (the debug data of a GOAWAY). Who looks for a
# fault in gRPC sets the variable.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
