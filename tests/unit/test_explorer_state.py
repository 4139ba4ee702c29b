"""States are checked, compared and written; the history undoes a whole drag in one step."""

import json
from dataclasses import replace

import pytest

from clcae_lib.explorer import ExplorerError, History, State

FULL = State(
    source="upload",
    upload="aGk=",
    space="w_plus",
    truncation=0.5,
    edits={"smile": 1.5, "age": -2},
    mix_seed=3,
    mix_layers=(4, 2),
    lock_identity=True,
    strip="age",
    strip_range=1,
)


def test_json_restores_a_state():
    again = State.from_json(FULL.to_json())
    assert again == FULL
    assert hash(again) == hash(FULL)
    assert State.from_json("{}") == State()


def test_equal_requests_are_equal_states():
    assert State(edits={"b": 1, "a": 2, "c": 0}) == State(edits={"a": 2.0, "b": 1.0})
    assert State(edits={"b": 1, "a": 2}).to_json() == State(edits={"a": 2, "b": 1}).to_json()
    assert FULL.mix_layers == (2, 4)
    assert State() != State(edits={"a": 1})


def test_an_edit_is_set_and_taken_away():
    edited = State().with_edit("smile", 1).with_edit("age", 2)
    assert dict(edited.edits) == {"age": 2, "smile": 1}
    assert dict(edited.with_edit("age", 0).edits) == {"smile": 1}
    with pytest.raises(TypeError):
        edited.edits["age"] = 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("world", wrong) for wrong in ("../../etc", "", "a\n", None)),
        *(("source", wrong) for wrong in ("disk", [])),
        ("space", "z"),
        ("method", "<b>"),
        *(("seed", wrong) for wrong in (-1, True, 2**60)),
        ("index", 1.5),
        ("upload", 5),
        *(("truncation", wrong) for wrong in (1.1, float("nan"))),
        *(("edits", wrong) for wrong in ([1], {"a": float("inf")}, {"a": "1"}, {"<script>": 1}, {"a": 21})),
        ("mix_seed", "1"),
        *(("mix_layers", wrong) for wrong in ("12", [-1], [70])),
        ("lock_identity", 1),
        ("strip", "a b"),
        ("strip_range", 0),
    ],
)
def test_a_value_that_no_state_can_have_is_refused_by_name(name, value):
    changed = {name: value}
    for make in (lambda: State.from_json(json.dumps(changed)), lambda: replace(State(), **changed)):
        with pytest.raises(ExplorerError, match=name) as caught:
            make()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "not an object"),
        ('{"colour": 1}', "colour"),
        ('{"self": 1}', "self"),
        (json.dumps({"seed": "x" * 9_000_000}), "characters"),
    ],
)
def test_wrong_files_are_refused_in_a_sentence(text, said):
    with pytest.raises(ExplorerError, match=said):
        State.from_json(text)


# ----------------------------------------------------------------------------------------- history


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def past(clock):
    return History(State(), clock=clock, limit=4)


def test_undo_and_redo_walk_the_states(past):
    one, two = State(seed=1), State(space="w")
    past.push(one)
    past.push(two)
    assert past.undo() == one
    assert past.undo() == past.undo() == State()
    assert not past.can_undo
    assert past.redo() == one
    assert past.redo() == past.redo() == two
    assert not past.can_redo


def test_a_drag_is_one_step_until_a_pause(past, clock):
    for strength in (0.1, 0.2, 0.3):
        past.push(past.state.with_edit("smile", strength))
        clock.now += 0.1
    clock.now += 5
    past.push(past.state.with_edit("smile", 0.4))
    past.push(past.state.with_edit("age", 1))
    assert dict(past.undo().edits) == {"smile": 0.4}
    assert dict(past.undo().edits) == {"smile": 0.3}
    assert past.undo() == State()


def test_an_undo_ends_a_drag(past):
    past.push(State(seed=1))
    past.push(State(truncation=0.5))
    past.undo()
    past.push(State(seed=2))
    assert past.undo() == State(seed=1)


def test_a_drag_may_pass_its_start_or_end_there(past):
    for strength in (1.0, 0.0):
        past.push(State().with_edit("yaw", strength))
    assert past.state == State()
    assert not past.can_undo, "a drag back to its start left a step"
    for strength in (2.0, 0.0, 0.5, -1.0):
        past.push(State().with_edit("yaw", strength))
    assert past.undo() == State()
    assert not past.can_undo


def test_a_new_state_clears_what_was_undone_and_the_same_does_not(past):
    past.push(State(seed=1))
    past.undo()
    past.push(State())
    assert past.can_redo
    past.push(State(space="w"))
    assert not past.can_redo


def test_several_changes_together_are_not_a_drag(past):
    both = replace(State(), seed=1, truncation=0.5)
    past.push(both)
    past.push(replace(both, seed=2, truncation=0.4))
    assert past.undo() == both


def test_reset_can_be_undone(past):
    past.push(State(seed=4))
    assert past.reset() == State()
    assert past.undo() == State(seed=4)


def test_old_steps_are_forgotten(past, clock):
    for seed in range(1, 7):
        past.push(State(seed=seed))
        clock.now += 10
    assert [past.undo().seed for _ in range(4)] == [5, 4, 3, 3]
