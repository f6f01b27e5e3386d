"""Nuitka plugin: modules go in as byte code, packed; C is made of the entry and of what asks whether it was compiled.

Machine code takes several times the room of byte code, on the board, in memory and in the download, and makes nothing
faster that was measured (docs/adr/0048-footprint.md).
"""

import zlib
from pathlib import Path
from typing import Any

from nuitka.plugins.PluginBase import NuitkaPluginBase

COMPILED = ("__main__", "agent", "edge.selfexec")
SOURCES = tuple(Path(__file__).with_name(name) for name in ("packed_code.c", "frozen.c"))


def packed(code: bytes) -> bytes:
    """Marshalled code as packed_code.c reads it."""
    return b"z" + len(code).to_bytes(4, "little") + zlib.compress(code, 9)


class ThinPlugin(NuitkaPluginBase):
    plugin_name = "thin"
    plugin_desc = "byte code, packed"

    @staticmethod
    def isAlwaysEnabled() -> bool:
        return True

    def decideCompilation(self, module_name: Any) -> str | None:
        """Nuitka asks for each module: "bytecode", "compiled" or None for its own choice."""
        return None if module_name.hasOneOfNamespaces(*COMPILED) else "bytecode"

    def onModuleCompleteSet(self, module_set: Any) -> None:
        """All modules are known and have their byte code. What Python's own start reads ("technical") stays as it is."""
        for module in module_set:
            if module.isUncompiledPythonModule() and not module.isTechnical() and not module.bytecode.startswith(b"z"):
                module.bytecode = packed(module.bytecode)

    def getPreprocessorSymbols(self, onefile: bool) -> dict[str, str]:
        return {} if onefile else {"PyMarshal_ReadObjectFromString": "agent_read_code"}

    def getExtraCodeFiles(self) -> dict[str, str]:
        return {source.name: source.read_text() for source in SOURCES}
