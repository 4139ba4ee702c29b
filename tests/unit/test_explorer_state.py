import json
from dataclasses import replace

import pytest

from clcae_lib.explorer import ExplorerError, State

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


def test_json_brings_a_state_back():
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
        ("world", "../../etc"),
        ("world", ""),
        ("world", None),
        ("source", "disk"),
        ("source", []),
        ("space", "z"),
        ("method", "<b>"),
        ("seed", -1),
        ("seed", True),
        ("seed", 2**60),
        ("index", 1.5),
        ("upload", 5),
        ("truncation", 1.1),
        ("truncation", float("nan")),
        ("edits", [1]),
        ("edits", {"a": float("inf")}),
        ("edits", {"a": "1"}),
        ("edits", {"<script>": 1}),
        ("edits", {"a": 21}),
        ("mix_seed", "1"),
        ("mix_layers", "12"),
        ("mix_layers", [-1]),
        ("lock_identity", 1),
        ("strip", "a b"),
        ("strip_range", 0),
    ],
)
def test_what_no_state_can_have_is_refused_by_name(name, value):
    with pytest.raises(ExplorerError, match=name) as caught:
        State.from_json(json.dumps({name: value}))
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "wrong",
    [{"truncation": 1.5}, {"seed": -1}, {"edits": {"a": 30.0}}, {"world": "a/b"}, {"mix_layers": (70,)}],
)
def test_a_state_is_checked_however_it_is_made(wrong):
    with pytest.raises(ExplorerError, match=next(iter(wrong))):
        replace(State(), **wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no object"),
        ('{"colour": 1}', "colour"),
        ('{"truncation": NaN}', "truncation"),
        (json.dumps({"seed": "x" * 9_000_000}), "characters"),
    ],
)
def test_wrong_files_are_refused_in_a_sentence(text, said):
    with pytest.raises(ExplorerError, match=said):
        State.from_json(text)
