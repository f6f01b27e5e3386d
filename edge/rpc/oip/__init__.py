"""The Open Inference Protocol, version 2, on the agent's models (docs/spec/open-inference.md)."""
