import threading
from dataclasses import replace

from clcae_lib.explorer import History, State


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def history(**options):
    clock = Clock()
    return History(State(), clock=clock, **options), clock


def test_undo_and_redo_walk_the_states():
    past, _ = history()
    one, two = State(seed=1), State(space="w")
    past.push(one)
    past.push(two)
    assert past.undo() == one
    assert past.undo() == past.undo() == State()
    assert not past.can_undo
    assert past.redo() == one
    assert past.redo() == past.redo() == two
    assert not past.can_redo


def test_a_drag_is_one_step():
    past, clock = history()
    for strength in (0.1, 0.2, 0.3):
        past.push(past.state.with_edit("smile", strength))
        clock.now += 0.1
    past.push(past.state.with_edit("age", 1))
    assert dict(past.undo().edits) == {"smile": 0.3}
    assert past.undo() == State()


def test_a_pause_ends_a_drag():
    past, clock = history()
    past.push(State().with_edit("smile", 1))
    clock.now = 5.0
    past.push(State().with_edit("smile", 2))
    assert dict(past.undo().edits) == {"smile": 1}


def test_an_undo_ends_a_drag():
    past, _ = history()
    past.push(State(seed=1))
    past.push(State(truncation=0.5))
    past.undo()
    past.push(State(seed=2))
    assert past.undo() == State(seed=1)


def test_a_drag_back_to_its_start_leaves_no_step():
    past, _ = history()
    past.push(State(truncation=0.5))
    past.push(State())
    assert past.state == State()
    assert not past.can_undo


def test_a_new_state_forgets_what_was_undone_and_the_same_does_not():
    past, _ = history()
    past.push(State(seed=1))
    past.undo()
    past.push(State())
    assert past.can_redo
    past.push(State(space="w"))
    assert not past.can_redo


def test_several_changes_at_once_are_no_drag():
    past, _ = history()
    both = replace(State(), seed=1, truncation=0.5)
    past.push(both)
    past.push(replace(both, seed=2, truncation=0.4))
    assert past.undo() == both


def test_reset_can_be_undone():
    past, _ = history()
    past.push(State(seed=4))
    assert past.reset() == State()
    assert past.undo() == State(seed=4)


def test_old_steps_are_forgotten():
    past, clock = history(limit=3)
    for seed in range(1, 6):
        past.push(State(seed=seed))
        clock.now += 10
    assert past.undo() == State(seed=4)
    assert past.undo() == past.undo() == State(seed=3)


def test_a_drag_may_pass_its_start_and_go_on():
    start = State()
    history = History(start, clock=lambda: 0.0)
    for strength in (1.0, 0.0, 2.0, 0.0, 0.5, -1.0):
        history.push(start.with_edit("yaw", strength))
    assert history.state == start.with_edit("yaw", -1.0)
    assert history.undo() == start
    assert not history.can_undo


def test_changes_from_several_threads_happen_one_after_another():
    done, early = threading.Event(), []

    def undo():
        past.undo()
        done.set()

    def clock():
        if len(early) == 1:  # in the middle of the second change
            thread.start()
        early.append(done.wait(0.3) if len(early) == 1 else None)
        return 0.0

    thread = threading.Thread(target=undo)
    past = History(State(), clock=clock)
    past.push(State(seed=1))
    past.push(State(truncation=0.5))
    thread.join(10)
    assert early == [None, False], "the undo came in the middle of a change"
    assert past.state == State(seed=1)
    assert past.redo() == State(truncation=0.5)
