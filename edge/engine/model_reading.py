"""Reads what a model file says of itself; the rules are in `edge.engine.model_facts` and `edge.engine.model_graph`."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge.engine.model_facts import ModelFacts, Signature, read_facts
from edge.engine.model_graph import Graph, read_graph

_Found = TypeVar("_Found")


def facts_of(model_path: str) -> ModelFacts:
    """The facts of a model file.

    Raises:
        ModelRefusedError: it is no model, or damaged (L-7).
    """
    return _read(model_path, read_facts)


def graph_of(model_path: str, signature: Signature | None = None) -> Graph:
    """A model file's first graph, or that of a signature.

    Raises:
        ModelRefusedError: it is damaged (L-7).
        UnsupportedModelError: an input or output has a name that is not UTF-8.
    """
    return _read(model_path, lambda data: read_graph(data, signature.graph if signature else 0, signature))


def _read(model_path: str, reader: Callable[[memoryview], _Found]) -> _Found:
    with Path(model_path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return reader(memoryview(b""))
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
            return reader(data)
