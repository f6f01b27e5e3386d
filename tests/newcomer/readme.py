"""README.md as a shell script: what a reader would type and save, word for word, in the order of the page.

`sh` blocks are typed in one shell after the other; a `python` block is saved under the name that the sentence before it
says. The line that starts the agent, which stays in the foreground in a terminal of its own, is started beside.
"""

import re
import shlex
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>sh|python)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"`([\w.]+\.py)`")
AGENT = re.compile(r"^\S*python agent\.py -a (?P<socket>\S+) -c .*$", re.MULTILINE)
START = """\
{line} > agent.log 2>&1 &
agent=$!
trap 'kill $agent; wait $agent' EXIT
for _ in $(seq 600); do [ -S {socket} ] && break; kill -0 $agent || {{ cat agent.log; exit 1; }}; sleep 0.1; done
"""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, text, and the line before, of each block that a reader types or saves."""
    return [(found["language"], found["text"], found["before"]) for found in BLOCK.finditer(page)]


def script(page: str) -> str:
    """The page as a script for bash; the clone has been made, and the run is in its folder.

    Raises:
        ValueError: a file to be saved has no name.
    """
    parts = ["set -euxo pipefail"]
    for language, whole, before in blocks(page):
        text = whole.partition("\n")[2] if whole.startswith("git clone") else whole
        if language == "python":
            name = FILE_NAME.search(before)
            if name is None:
                raise ValueError(f"the file after {before!r} has no name")
            parts.append(f"cat > {name[1]} <<'END-OF-FILE'\n{text}END-OF-FILE")
        elif (found := AGENT.search(text)) is not None:
            parts.append(text[: found.start()])
            parts.append(START.format(line=found[0], socket=shlex.quote(found["socket"])))
        else:
            parts.append(text)
    parts.append(parts[-1])  # the application, a second time
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(script(README.read_text()), end="")
