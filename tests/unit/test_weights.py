"""Instances of a model share its weights (P-8, L-6): they answer as one that is alone, and leave nothing behind."""

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.models import MobileNet
from edge.engine.engine import LITERT, Session, SessionOptions
from edge.engine.litert import LitertEngine
from edge.engine.probe import probe
from edge.engine.sample_inputs import values
from edge.engine.samples import SMALL, Sample
from edge.engine.weights import NEW, SharedWeights
from edge.errors import ModelRefusedError
from edge.serving.instances import close_all, open_instances
from tests.data import hard_models
from tests.data.make_models import add_one
from tests.fakes.engines import litert_is_there

pytestmark = pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")

ENGINE = LitertEngine()
OPTIONS = SessionOptions(engine=LITERT, weights=NEW)
DIGITS = Path(__file__).parents[2] / "demo/data/digits.tflite"


MODELS = {
    "digits": DIGITS.read_bytes(),
    "float32": MobileNet(int8=False, size=32).build(),
    "int8": MobileNet(int8=True, size=32).build(),
    "no-weights": add_one(),
    "any-shape": hard_models.convolution(8),
    "any-batch": hard_models.transposed_convolution(),
    "sparse": hard_models.sparse_convolution(),
    "loop": hard_models.doubling(),
}


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """The process has as many files open, and the same mapped, afterwards."""
    before = _held()
    yield
    gc.collect()
    assert _held() == before


def _held() -> Counter[str]:
    fds = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            fds.append(str(fd.readlink()))
    maps = Path("/proc/self/maps").read_text().splitlines()
    return Counter(name for name in (*fds, *maps) if "memfd:weights" in name)


def weights_inodes() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:weights" in line}


def mapped() -> int:
    return sum("memfd:weights" in line for line in Path("/proc/self/maps").read_text().splitlines())


def answers(session: Session, dynamic: int = 1) -> list[bytes]:
    """The bytes of the outputs, for inputs unlike each other; `dynamic`: the size of each dimension that has a choice."""
    shapes = tuple(tuple(dynamic if size < 0 else size for size in spec.shape) for spec in session.inputs)
    data = [values(spec, shape, SMALL) for spec, shape in zip(session.inputs, shapes, strict=True)]
    return [bytes(memoryview(output)) for output in session.run(data, shapes)]


@pytest.mark.parametrize("name", MODELS)
def test_sessions_that_share_weights_answer_as_one_alone(name: str, tmp_path: Path, nothing_left: None) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(MODELS[name])

    def opened(options: SessionOptions) -> Session:
        session = ENGINE.open(str(model), options)
        answers(session, 8)
        session.reset()
        return session

    alone = ENGINE.open(str(model), SessionOptions(engine=LITERT))
    expected = [answers(alone, size) for size in (8, 9)]
    alone.close()
    sessions = open_instances("m", opened, 3, OPTIONS)
    for _ in range(2):
        for session in sessions:
            assert [answers(session, size) for size in (8, 9)] == expected
            session.reset()
    sessions.pop(0).close()  # the first, which made them
    assert [answers(session, 8) for session in sessions] == [expected[0]] * 2
    close_all(sessions)


def test_weights_are_in_memory_once(tmp_path: Path, nothing_left: None) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(MODELS["float32"])
    before, earlier = mapped(), weights_inodes()
    sessions = open_instances("m", lambda options: ENGINE.open(str(model), options), 3, OPTIONS)
    inodes = weights_inodes() - earlier
    assert mapped() - before >= 3 and len(inodes) == 1
    close_all(sessions)


def test_a_trial_measures_packed_weights(tmp_path: Path) -> None:  # [L-6] [P-13]
    """They are no process's own memory, and the file for them is there for several instances alone."""
    model = tmp_path / "model.tflite"
    model.write_bytes(MODELS["float32"])
    with model.open("rb") as file:
        alone, shared = (
            probe(
                file.fileno(), SessionOptions(weights=path), Sample(), run_seconds=60, engines=(LITERT,)
            ).session_bytes
            for path in ("", NEW)
        )
    assert shared >= alone > 10 << 20


def test_what_is_shared_stays_as_it_is(tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(MODELS["digits"])
    shared = SharedWeights()
    assert not shared.seal()  # nothing is in it yet
    session = ENGINE.open(str(model), OPTIONS._replace(weights=shared.path))
    assert shared.seal()
    for flags in (os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
        with pytest.raises(PermissionError):
            fd = os.open(shared.path, flags)
            try:
                os.write(fd, b"other weights")
            finally:
                os.close(fd)
    shared.close()
    answers(session)
    session.close()


def test_instances_share_nothing_where_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(MODELS["digits"])

    def opened(options: SessionOptions) -> Session:
        if options.weights:
            raise ModelRefusedError("no file can be made")
        return ENGINE.open(str(model), options)

    before = mapped()
    with caplog.at_level("INFO"):
        sessions = open_instances("m", opened, 2, OPTIONS)
    assert "model m: its instances share no weights: no file can be made" in caplog.text
    assert len(sessions) == 2 and mapped() == before
    close_all(sessions)


def test_a_model_that_is_refused_leaves_no_session(tmp_path: Path, nothing_left: None) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(MODELS["digits"])
    made: list[Session] = []

    def opened(options: SessionOptions) -> Session:
        if len(made) % 3 == 2:
            raise ModelRefusedError("no memory")
        made.append(ENGINE.open(str(model), options))
        return made[-1]

    with pytest.raises(ModelRefusedError, match="no memory"):
        open_instances("m", opened, 3, OPTIONS)
