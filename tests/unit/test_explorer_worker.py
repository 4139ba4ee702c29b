"""The explorer's worker: the newest state wins, nothing is queued, errors arrive as sentences."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from clcae_lib.explorer._recent import Recent
from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.explorer.studio import Frame
from clcae_lib.explorer.worker import Worker

PIXEL = np.zeros((1, 1, 3), np.uint8)
FRAME = Frame(PIXEL, PIXEL, PIXEL)


class Bench:
    """A worker with a gate in its fast path, and all that it did."""

    def __init__(self, *, rest=0.02):
        self.gate, self.drawn, self.framed, self.told = threading.Event(), [], [], []
        self.entered = threading.Event()
        self.gate.set()
        self.worker = Worker(self.picture, self.frame, self.deliver, rest=rest)

    def picture(self, state):
        self.entered.set()
        assert self.gate.wait(10)
        self.drawn.append(state.seed)
        if state.seed == 13:
            raise ExplorerError("thirteen <b>brings</b> bad luck")
        if state.seed == 14:
            raise KeyError("nobody thought of this")
        return PIXEL

    def frame(self, state):
        self.framed.append(state.seed)
        return FRAME

    def deliver(self, state, result):
        if state.seed == 15:
            raise RuntimeError("the page is gone")
        self.told.append((state.seed, result))

    def ask(self, seed):
        self.worker.ask(replace(State(), seed=seed))


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.gate.set()
    made.worker.stop()
    assert not made.worker._thread.is_alive()


def test_a_hundred_quick_requests_end_in_the_last_and_are_not_queued(bench):
    bench.gate.clear()
    bench.ask(0)
    assert bench.entered.wait(10)
    for seed in range(1, 101):
        bench.ask(seed)
    bench.gate.set()
    assert bench.worker.wait(10)
    assert bench.drawn == [0, 100]
    assert bench.framed == [100], "only the state that rests gets its frame"
    assert bench.told[-1] == (100, FRAME)


def test_asking_never_blocks_the_caller(bench):
    bench.gate.clear()
    bench.ask(1)
    bench.ask(2)
    assert bench.drawn == []
    assert bench.worker.wait(0.01) is False


def test_errors_are_delivered_and_the_thread_lives_on(bench):
    bench.ask(13)
    assert bench.worker.wait(10)
    bench.ask(14)
    assert bench.worker.wait(10)
    (_, expected), (_, unexpected) = bench.told
    assert str(expected) == "thirteen <b>brings</b> bad luck"
    assert isinstance(unexpected, ExplorerError)
    assert "KeyError" in str(unexpected)
    assert "nobody thought" not in str(unexpected), "what an unknown error says is for the log"
    assert bench.framed == [], "no frame of a state that cannot be drawn"
    bench.ask(15)
    bench.ask(1)
    assert bench.worker.wait(10)
    assert bench.told[-1] == (1, FRAME)


def test_jobs_of_one_name_replace_each_other(bench):
    done = []
    bench.gate.clear()
    bench.ask(1)
    assert bench.entered.wait(10)
    for word in ("old", "new"):
        bench.worker.do("export", lambda word=word: done.append(word))
    bench.worker.do("other", lambda: done.append("other"))
    bench.gate.set()
    assert bench.worker.wait(10)
    assert done == ["new", "other"]


def test_the_workers_threads_are_no_other_threads(bench):
    def count(found):
        found.append(torch.get_num_threads())

    inside, later, before = [], [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        worker = Worker(bench.picture, bench.frame, bench.deliver, threads=1)
        worker.do("count", lambda: count(inside))
        assert worker.wait(10)
        worker.stop()
        thread = threading.Thread(target=count, args=(later,))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert (inside, later) == ([1], [2])


def test_two_threads_that_ask_for_one_value_make_it_once():
    recent, made, second = Recent(), [], threading.Event()

    def make():
        made.append(1)
        if len(made) > 1:
            second.set()
        second.wait(0.3)
        return len(made)

    threads = [threading.Thread(target=recent.get, args=("key", make)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
