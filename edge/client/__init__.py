"""The command-line client and the packaging tool."""

# The words that make the program a client rather than the daemon; here, so that the daemon need not import the client.
COMMANDS = frozenset(
    {
        "list", "load", "unload", "describe", "capture-status", "predict", "status", "health", "doctor",
        "package", "verify", "demo-ca",
        "ListModels", "LoadModel", "UnloadModel", "UnLoadModel", "DescribeModel", "GetCaptureDataStatus",
        "Predict", "PredictSHM", "PredictAndCapture", "PredictSHMAndCapture",
    }
)  # fmt: skip
