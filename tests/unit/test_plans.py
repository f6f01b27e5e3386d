"""Requests recognised by their bytes mean what the parser says they mean (P-2, P-7, P-8)."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import ModelNotFoundError, RequestError, TensorError
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import open_inference_pb2 as infer_pb
from edge.rpc.codec import byte_data_ranges
from edge.rpc.oip import codec as infer_codec
from edge.rpc.plans import MAX_CONSTANT_BYTES, MAX_LENGTHS, MAX_SAME_LENGTH, Plan, PlanBook
from edge.serving.binding import InputBinder
from edge.serving.remarks import Remarks
from edge.tensors import DType, TensorSpec

A = TensorSpec("a", DType.FLOAT32, (1, 4), (1, 4))
B = TensorSpec("b", DType.INT8, (1, 3), (1, 3))
CALLER: Any = None  # for these models no shape is tried


class Models:
    """A registry of models that are never run."""

    def __init__(self) -> None:
        self.ready: dict[str, Any] = {}
        self.borrows: frozenset[int] = frozenset()

    def add(self, name: str, *inputs: TensorSpec) -> None:
        self.remove(name)
        scheduler = SimpleNamespace(closing=False)
        self.ready[name] = SimpleNamespace(
            name=name,
            binder=InputBinder(inputs),
            inputs=inputs,
            outputs=inputs,
            scheduler=scheduler,
            borrows=self.borrows,
            remarks=Remarks(name),
            shape_trials=None,
        )

    def remove(self, name: str) -> None:
        if name in self.ready:
            self.ready.pop(name).scheduler.closing = True

    def get(self, name: str) -> Any:
        if name not in self.ready:
            raise ModelNotFoundError(name)
        return self.ready[name]


@pytest.fixture
def models() -> Models:
    models = Models()
    models.add("m", A, B)
    return models


@pytest.fixture
def book(models: Models) -> PlanBook:
    return PlanBook(models)  # type: ignore[arg-type]


def tensor(spec: TensorSpec, data: bytes | None = None, segment: int = 0) -> pb.Tensor:
    made = pb.Tensor(tensor_metadata=pb.TensorMetadata(name=spec.name, data_type=int(spec.dtype), shape=spec.shape))  # type: ignore[arg-type]
    if data is None:
        made.shared_memory_handle.segment_id = segment
    else:
        made.byte_data = data
    return made


def request(*tensors: pb.Tensor, name: str = "m") -> bytes:
    return pb.PredictRequest(name=name, tensors=tensors).SerializeToString()


def seen(plan: Plan, raw: bytes) -> list[object]:
    """What a plan says each input is: its bytes, or its segment."""
    found: list[object] = [bytes(data) for data in plan.data(raw)]
    for item in plan.shared:
        found[item.position] = item.segment
    return found


def test_the_second_request_of_a_kind_is_recognised(book: PlanBook) -> None:
    first, second = (request(tensor(A, byte * 16), tensor(B, byte * 3)) for byte in (b"1", b"2"))
    assert seen(book.plan(first, CALLER), first) == [b"1" * 16, b"111"]
    plan = book.plan(second, CALLER)
    assert plan.constants and seen(plan, second) == [b"2" * 16, b"222"]
    assert book.plan(first, CALLER) is plan


def test_inputs_are_in_the_models_order(book: PlanBook) -> None:  # [P-8]
    for _ in range(2):
        raw = request(tensor(B, b"bbb"), tensor(A, b"a" * 16))
        assert seen(book.plan(raw, CALLER), raw) == [b"a" * 16, b"bbb"]


def test_segments_are_told_apart(book: PlanBook) -> None:  # [P-3]
    for segment in (5, 6, 5, 6):
        raw = request(tensor(A, segment=segment), tensor(B, b"bbb"))
        for _ in range(2):
            [item] = book.plan(raw, CALLER).shared
            assert (item.position, item.segment.segment_id, item.size) == (0, segment, 16)


def test_another_shape_of_the_same_length_is_checked(book: PlanBook) -> None:  # [P-2]
    good = request(tensor(A, bytes(16)), tensor(B, bytes(3)))
    book.plan(good, CALLER)
    assert book.plan(good, CALLER).constants
    wrong = TensorSpec("a", DType.INT32, (1, 4), (1, 4))
    bad = request(tensor(wrong, bytes(16)), tensor(B, bytes(3)))
    assert len(bad) == len(good)
    with pytest.raises(TensorError):
        book.plan(bad, CALLER)


def test_a_model_loaded_anew_is_planned_anew(models: Models, book: PlanBook) -> None:  # [P-1]
    raw = request(tensor(A, bytes(16)), tensor(B, bytes(3)))
    book.plan(raw, CALLER)
    assert book.plan(raw, CALLER).model is models.ready["m"]
    models.add("m", A, B)
    assert book.plan(raw, CALLER).model is models.ready["m"]
    models.remove("m")
    with pytest.raises(ModelNotFoundError):
        book.plan(raw, CALLER)


def test_a_model_that_goes_while_a_request_is_parsed_leaves_no_plan(models: Models, book: PlanBook) -> None:  # [U-2]
    raw = request(tensor(A, bytes(16)), tensor(B, bytes(3)))
    going = models.ready["m"]
    models.add("m", A, B)
    models.get = lambda name: going  # type: ignore[method-assign]
    assert book.plan(raw, CALLER).model is going
    assert not book._plans and not book._encoders
    del models.get  # type: ignore[method-assign]
    assert book.plan(raw, CALLER).model is models.ready["m"]


def test_what_is_kept_is_bounded(models: Models, book: PlanBook) -> None:
    for size in range(2 * MAX_LENGTHS):
        models.add("x" * (size + 1), B)
        book.plan(request(tensor(B, bytes(3)), name="x" * (size + 1)), CALLER)
    for segment in range(100, 100 + 2 * MAX_SAME_LENGTH):
        book.plan(request(tensor(A, segment=segment), tensor(B, bytes(3))), CALLER)
    assert len(book._plans) <= MAX_LENGTHS
    assert max(map(len, book._plans.values())) == MAX_SAME_LENGTH
    models.add("long", TensorSpec("n" * MAX_CONSTANT_BYTES, DType.INT8, (1, 3), (1, 3)))
    raw = request(tensor(models.ready["long"].outputs[0], bytes(3)), name="long")
    for _ in range(2):
        assert not book.plan(raw, CALLER).constants


@settings(deadline=None)
@given(
    data=st.lists(st.binary(max_size=40), max_size=4),
    noise=st.binary(max_size=12),
    at=st.integers(0, 60),
)
def test_the_scan_finds_what_the_parser_finds_or_nothing(data: list[bytes], noise: bytes, at: int) -> None:
    raw = request(*[pb.Tensor(byte_data=item) for item in data])
    found = byte_data_ranges(raw)
    assert found is not None and [raw[start:stop] for start, stop in found] == data
    altered = raw[:at] + noise + raw[at + len(noise) :]
    byte_data_ranges(altered)  # whatever comes, it does not raise


def test_requests_with_ids_push_out_no_others() -> None:  # [O-6]
    models = Models()
    models.add("m", A)
    models.ready["m"].manifest = SimpleNamespace(model_version="1")
    book = PlanBook(models, infer_codec.dialect(None))  # type: ignore[arg-type]

    def ask(id: str) -> Plan:
        asked = infer_pb.ModelInferRequest(model_name="m", id=id, raw_input_contents=[bytes(16)])
        asked.inputs.add(name="a", datatype="FP32", shape=(1, 4))
        return book.plan(asked.SerializeToString(), CALLER)

    first = ask("")
    kept = ask("")
    assert first.once is not None and kept.once is None
    for number in range(100):
        assert ask(f"{number:03}").once is not None
    assert ask("") is kept
    assert len(book._plans) == 1


@settings(deadline=None, max_examples=300)
@given(altered=st.data())
def test_a_recognised_request_is_what_the_parser_says(altered: st.DataObject) -> None:
    models = Models()
    models.add("m", A, B)
    book, fresh = PlanBook(models), PlanBook(models)  # type: ignore[arg-type]
    raw = bytearray(request(tensor(A, bytes(16)), tensor(B, bytes(3))))
    book.plan(bytes(raw), CALLER)
    for _ in range(altered.draw(st.integers(1, 3))):
        raw[altered.draw(st.integers(0, len(raw) - 1))] = altered.draw(st.integers(0, 255))
    try:
        expected = seen(fresh.plan(bytes(raw), CALLER), bytes(raw))
    except Exception as error:
        with pytest.raises(type(error)):
            book.plan(bytes(raw), CALLER)
    else:
        assert seen(book.plan(bytes(raw), CALLER), bytes(raw)) == expected


@pytest.mark.parametrize(("offset", "copied"), [(0, 0), (64, 0), (16, 16), (1, 16)])
def test_what_is_borrowed_is_not_counted_as_copied(models: Models, offset: int, copied: int) -> None:
    models.borrows = frozenset({0})
    models.add("m", A, B)
    sent = pb.PredictRequest(name="m", tensors=[tensor(A, segment=1), tensor(B, segment=1)])
    sent.tensors[0].shared_memory_handle.offset = offset
    assert PlanBook(models).plan(sent.SerializeToString(), CALLER).copied_bytes == copied + 3  # type: ignore[arg-type]


def test_what_is_declared_wrongly_is_counted_at_every_call(
    models: Models, book: PlanBook, caplog: pytest.LogCaptureFixture
) -> None:  # [P-12]
    wrong = TensorSpec("b", DType.FLOAT32, (1, 3), (1, 3))
    remarks = models.ready["m"].remarks
    for count in (1, 2, 3):
        raw = request(tensor(A, bytes(16)), tensor(wrong, b"bbb"))
        plan = book.plan(raw, CALLER)
        assert seen(plan, raw) == [bytes(16), b"bbb"]
        assert remarks.mislabelled == count
    assert plan.constants
    good = request(tensor(A, bytes(16)), tensor(B, b"bbb"))
    assert seen(book.plan(good, CALLER), good) == seen(book.plan(good, CALLER), good) == [bytes(16), b"bbb"]
    assert remarks.mislabelled == 3
    [line] = caplog.messages
    assert "model m: tensor 'b' is declared as FLOAT32 [1, 3], which does not match its bytes" in line


def test_a_refusal_is_in_the_log_once(book: PlanBook, caplog: pytest.LogCaptureFixture) -> None:  # [P-2]
    for size in (15, 17, 15):
        with pytest.raises(TensorError):
            book.plan(request(tensor(A, bytes(size)), tensor(B, b"bbb")), CALLER)
    [line] = caplog.messages
    assert "model m: a request is refused: tensor 'a': got 15 bytes" in line


def test_a_refusal_before_the_model_is_known_is_in_the_log_once(
    book: PlanBook, caplog: pytest.LogCaptureFixture
) -> None:  # [P-1]
    for raw in (b"\xff", pb.PredictRequest(name="other").SerializeToString(), b"\xfe\xff"):
        with pytest.raises((RequestError, ModelNotFoundError)):
            book.plan(raw, CALLER)
    bad, unknown = caplog.messages
    assert "a request is refused: the request is not a valid PredictRequest" in bad
    assert "refused: other" in unknown
