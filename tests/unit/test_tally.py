"""Counts by name: by a word, and by what counts one more of a name without a lock."""

import threading

from edge.tally import Tally


def test_counts_and_counters_are_one() -> None:
    tally = Tally("OK")
    count_ok, again = tally.counter("OK"), tally.counter("OK")
    assert tally.counts() == {"OK": 0}
    count_ok()
    again()
    tally.count("OK", 2)
    tally.count("INTERNAL")
    assert tally.counts() == tally.counts() == {"OK": 4, "INTERNAL": 1}


def test_no_count_is_lost_between_threads() -> None:
    tally = Tally()
    count = tally.counter("OK")

    def run() -> None:
        for _ in range(2000):
            count()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.counts() == {"OK": 8000}
