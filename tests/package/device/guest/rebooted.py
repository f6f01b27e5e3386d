"""The second boot. On the emulated machine it is years later, and the signer's certificate has expired."""

import ctypes
import struct
import time

from harness import SET, check, journal, wait_active
from models import declare, divide, managed, serves

ADJ_STATUS, ADJ_MAXERROR, ADJ_ESTERROR = 0x10, 0x4, 0x8  # linux/timex.h


@check("after a reboot the declared model serves before any client has called")
def _() -> None:
    wait_active()
    assert '"ok": true' in divide(3)
    assert managed()["why"] == "declared" and serves("1.0"), managed()


@check("after its signer's certificate has expired it does so still, and a new package of that signer is refused")
def _() -> None:
    if time.time() < SET["signer_expires"]:
        print("not tried: this machine's clock is that of its host")
        return
    # The clock counts as set, which a time server would have done.
    timex = ctypes.create_string_buffer(
        struct.pack("<I4xqqqqi", ADJ_STATUS | ADJ_MAXERROR | ADJ_ESTERROR, *(0,) * 5), 256
    )
    assert ctypes.CDLL(None).adjtimex(timex) >= 0
    answer = declare("4.0", ok=False)
    assert answer.startswith("exit 1") and "expired" in answer, f"{answer}\n{journal()[-3000:]}"
    assert serves("1.0"), managed()
