"""Whether a GPU is there for models, and which: asked of a trial of the smallest model (`doctor`)."""

import os
import re
import zlib
from base64 import b85decode
from dataclasses import dataclass

from edge.durable import write_all
from edge.engine.child import Child
from edge.engine.engine import GPU, LITERT_GPU, SessionOptions
from edge.engine.probe import OPENING_SECONDS, task_of
from edge.engine.samples import MADE_UP, Sample
from edge.text import printable

# A model whose output is its input plus one, float32 [1, 4] (tests/data/make_models.py), compressed.
_MODEL = (
    "c-oU-U|<Mw^D*XQkYHe8;9%fk5MU4iiU|NQGn6&~;u(w#410hWh`{n7bu2&{q=Nyf4g?sHXplN==7Q)uK>PrRp8&A|Bg8HhA"
    "Wi_{IY2DNAPUz910a18P#RebWET^ZW`WWbI7|>DQhy~8`WeCDfbcWO5BYhiC}9A@5?I250m&=@s2Xk{mVvs50m)qux3PfT2g"
    "13DnRy_2WiUG>RUxTTp(M4qq*y;Cu_RHyBrPYiBsIRg2uK#`6;y)F;epx#Glvc678a;IJV<c}0}#0edt@;HVO1Ts"
)
_ADAPTER = re.compile(r"Selected adapter: (.+?)(?:, arch=|$)", re.MULTILINE)  # what LiteRT prints on stderr
MAX_NAME_CHARACTERS = 100  # of a GPU, which its driver says


@dataclass(frozen=True)
class GpuFound:
    """`adapter` is what the driver calls the device, empty where it is not known; `fault` why it runs no model."""

    adapter: str
    fault: str


def find_gpu() -> GpuFound:
    """Try the smallest model on the GPU, in a process of its own: a driver may end it.

    Raises:
        MemoryLimitError: the system gives no process.
    """
    fd = os.memfd_create("model", os.MFD_CLOEXEC)
    try:
        write_all(fd, zlib.decompress(b85decode(_MODEL)))
        options = SessionOptions(engine=LITERT_GPU, accelerator=GPU, fallback=False)
        child = Child(task_of(fd, options, Sample(), MADE_UP, engines=(LITERT_GPU,)), [fd])
        said = ""
        answered = False
        signal = 0
        try:
            while (one := child.hear(OPENING_SECONDS)) is not None:
                answered = answered or bool(one.get("kind"))
                said = one.get("reason", "") or said
        except TimeoutError:
            said = f"it does not answer within {OPENING_SECONDS} s"
        finally:
            signal = child.end(patience=1)
    finally:
        os.close(fd)
    found = _ADAPTER.search(child.last_words)
    adapter = printable(found[1], MAX_NAME_CHARACTERS) if found else ""
    if answered:
        return GpuFound(adapter, "")
    return GpuFound(adapter, f"signal {signal} ends its trial" if signal else said or "its trial ends without a word")
