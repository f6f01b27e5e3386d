"""The command-line client and the packaging tool: its commands, here, so that the daemon need not import the client."""

# By group, with a line each.
GROUPS: dict[str, dict[str, str]] = {
    "models": {
        "load": "load a model package under a name",
        "unload": "unload a model",
        "list": "show the loaded models with their inputs and outputs",
        "describe": "show one loaded model",
        "reset": "reset the state of a model that keeps one",
        "predict": "run a loaded model on files",
        "models": "declare which models serve from every start on, replace them, go back",
    },
    "captures": {
        "capture-status": "show the status of a capture",
        "captures": "list, show, count and export what was captured, in a folder or a bucket",
    },
    "a fleet": {"fleet": "send models to a fleet of devices through a repository, or on a USB stick"},
    "the agent": {
        "status": "show what the agent is doing: models, calls, memory, waiting captures",
        "top": "show each model's calls per second and latencies, live on a terminal",
        "health": "ask whether the agent, or one model, is ready to serve",
        "doctor": "check the installation, and say how to fix what is wrong",
    },
    "packages": {
        "package": "make and sign a model package",
        "verify": "check a model package as an agent would, and say who signed it",
        "demo-ca": "make a throw-away CA and signing key for trying things out",
    },
    "installation": {"greengrass": "write the configuration of the Greengrass component"},
}
SUMMARIES = {word: text for group in GROUPS.values() for word, text in group.items()}

# The original example client's words for the same.
ORIGINAL = {
    "load": ("LoadModel",),
    "unload": ("UnloadModel", "UnLoadModel"),
    "list": ("ListModels",),
    "describe": ("DescribeModel",),
    "capture-status": ("GetCaptureDataStatus",),
}
ORIGINAL_PREDICTS = ("Predict", "PredictSHM", "PredictAndCapture", "PredictSHMAndCapture")

# The words that make the program a client rather than the daemon.
COMMANDS = frozenset({*SUMMARIES, *(word for words in ORIGINAL.values() for word in words), *ORIGINAL_PREDICTS})

_OPTIONS_WITH_VALUE = ("-a", "-c", "-m", "--max-message-bytes", "--socket", "--timeout")


def command_among(words: list[str]) -> str:
    """The first word that is neither an option nor the value of one that may stand before it; empty where there is none."""
    rest = iter(words)
    for word in rest:
        if word in _OPTIONS_WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def listing() -> str:
    """The commands by group, a line each."""
    width = max(map(len, SUMMARIES))
    lines = []
    for group, commands in GROUPS.items():
        lines += [f"  {group}", *(f"    {word:<{width}}  {text}" for word, text in commands.items())]
    return "\n".join(lines)


def unknown(word: str) -> str:
    """What to say of a word that is no command: the nearest ones, and the list."""
    import difflib

    near = difflib.get_close_matches(word, sorted(COMMANDS if word[:1].isupper() else SUMMARIES), n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no command {word[:40]!r}{hint}\n\ncommands:\n{listing()}"
