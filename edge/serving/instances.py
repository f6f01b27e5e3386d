"""The instances of a model: sessions of one file, which share its weights where their engine can."""

import logging
from collections.abc import Callable

from edge.engine.engine import LITERT, Session, SessionOptions
from edge.engine.weights import SharedWeights
from edge.errors import InferenceError, ModelRefusedError

log = logging.getLogger(__name__)


def open_instances(
    name: str, opened: Callable[[SessionOptions], Session], count: int, options: SessionOptions
) -> list[Session]:
    """`count` sessions of a model, each by `opened`, which has run it as well; all of them or, with its error, none.

    They share packed weights where `options` have some (`edge.engine.weights`) and LiteRT serves the model.
    """
    if options.weights and options.engine == LITERT:
        shared = SharedWeights()
        try:
            return _open_all(opened, count, options._replace(weights=shared.path), shared)
        except (InferenceError, ModelRefusedError) as error:
            log.info("model %s: its instances share no weights: %s", name, error)
        finally:
            shared.close()
    return _open_all(opened, count, options._replace(weights=""))


def _open_all(
    opened: Callable[[SessionOptions], Session],
    count: int,
    options: SessionOptions,
    shared: SharedWeights | None = None,
) -> list[Session]:
    sessions: list[Session] = []
    try:
        for _ in range(count):
            sessions.append(opened(options))
            if shared is not None and len(sessions) == 1 and not shared.seal():
                options = options._replace(weights="")
    except BaseException:
        close_all(sessions)
        raise
    return sessions


def close_all(sessions: list[Session]) -> None:
    """Close them."""
    for session in sessions:
        session.close()
