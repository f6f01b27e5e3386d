"""Nuitka plugin: what serves becomes C; packages of others, commands, deployments and a fleet's rounds go in as byte code.

Machine code takes several times the room of byte code, on the board and in the download, and gains nothing where a person,
the network or a trial is waited for.
"""

from typing import Any

from nuitka.plugins.PluginBase import NuitkaPluginBase

COMPILED = ("edge", "__main__", "agent")
BYTE_CODE = ("edge.client", "edge.deploy", "edge.fleet", "edge.greengrass")


class ThinPlugin(NuitkaPluginBase):
    plugin_name = "thin"
    plugin_desc = "packages of others as byte code"

    @staticmethod
    def isAlwaysEnabled() -> bool:
        return True

    def decideCompilation(self, module_name: Any) -> str | None:
        """Nuitka asks for each module: "bytecode", "compiled" or None for its own choice."""
        serves = module_name.hasOneOfNamespaces(*COMPILED) and not module_name.hasOneOfNamespaces(*BYTE_CODE)
        return None if serves else "bytecode"
