"""A server whose parked threads wake for what they see, and never because time has passed: `… tests.fakes.watched_server SOCKET`.

`/t/Wait` is answered once `/t/Release` has been called. Each message of the stream `/t/Hold` keeps the sockets from being read:
it writes a line to the standard output and waits for one on the standard input.
"""

import signal
import sys
import threading

from edge.clock import SystemClock
from edge.rpc import status, watch
from edge.rpc.core import Answer, Call, CoreServer, Stream


class Hold:
    """It answers nothing: a client that reads an answer makes its socket ready once more."""

    goes_on = True

    def __init__(self, stream: Stream) -> None:
        """See `StreamHandler`."""

    def message(self, raw: bytes) -> None:
        print("held", flush=True)
        sys.stdin.readline()

    def half_closed(self) -> None:
        """Nothing to do."""

    def closed(self) -> None:
        """Nothing was kept."""


def main() -> None:
    watch.LONGEST_SECONDS = 1000
    released = threading.Semaphore(0)

    def wait(raw: bytes, call: Call) -> Answer:
        call.step_aside()
        released.acquire()
        return b"released", status.OK, ""

    def release(raw: bytes, call: Call) -> Answer:
        released.release()
        return b"", status.OK, ""

    server = CoreServer({}, SystemClock())
    server.add_unary("/t/Wait", wait)
    server.add_unary("/t/Release", release)
    server.add_stream("/t/Hold", Hold)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server.listen(sys.argv[1])
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.stop(0)


main()
