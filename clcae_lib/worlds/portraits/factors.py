"""The named factors of the `portraits` world and their distribution.

A portrait is determined by the numbers listed in `FACTORS`. Those of the group *identity* say who
is in the image (head and feature shapes, skin, eye colour); those of the group *state* say how the
person looks in this image (pose, expression, age, hair, light, glasses, beard, background, clothes).

Every image has a global index. Its factors are a hash of that index, so any image of any split can
be drawn by itself, in any order, on any machine. Two correlated families make the world entangled:

* `age` raises `hair_grey` and the share of people with `glasses`;
* a hidden trait of the identity, never drawn itself, widens `jaw_width` and thickens
  `brow_thickness`, makes a `beard` likely and long hair (`hair_length`) unlikely; among the bearded,
  hair is shorter still.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SEED = 20221120

#: Global image indices. Disjoint by construction; nothing is trained on one and measured on the same.
SPLITS: dict[str, range] = {
    "train": range(0, 1_000_000),
    "judge_a": range(1_000_000, 1_400_000),
    "judge_b": range(1_400_000, 1_800_000),
    "validation": range(1_800_000, 1_900_000),
    "test": range(1_900_000, 2_000_000),
    "accessories": range(2_000_000, 2_100_000),
}

#: Objects that the generator never sees, worn in the images of the split `accessories`.
ACCESSORIES = ("hat", "earring", "scar", "pattern")


@dataclass(frozen=True)
class Factor:
    """One number that the renderer understands: its name, group, range and distribution."""

    name: str
    group: str
    low: float
    high: float
    text: str
    mean: float = 0.0
    std: float = 1.0


_TABLE = (
    Factor("head_width", "identity", -1, 1, "width of the skull"),
    Factor("head_length", "identity", -1, 1, "height of the skull"),
    Factor("jaw_width", "identity", -1, 1, "narrow chin to square jaw"),
    Factor("eye_size", "identity", -1, 1, "size of the eyes"),
    Factor("eye_spacing", "identity", -1, 1, "distance between the eyes"),
    Factor("eye_hue", "identity", -1, 1, "iris from blue through green to brown"),
    Factor("brow_thickness", "identity", -1, 1, "thickness of the brows"),
    Factor("nose_size", "identity", -1, 1, "length and width of the nose"),
    Factor("mouth_size", "identity", -1, 1, "width of the mouth and thickness of its lips"),
    Factor("skin_tone", "identity", -1, 1, "skin from light to dark"),
    Factor("yaw", "state", -40, 40, "degrees; positive turns the nose to the right of the picture"),
    Factor("pitch", "state", -22, 22, "degrees; positive looks up"),
    Factor("smile", "state", -1, 1, "corners of the mouth down to up; with them cheeks and lower lids"),
    Factor("mouth_open", "state", 0, 1, "closed to wide open"),
    Factor("eye_open", "state", 0, 1, "lids nearly closed to wide open"),
    Factor("brow_raise", "state", -1, 1, "brows low to raised"),
    Factor("age", "state", 0, 1, "lines, bags under the eyes, sagging cheeks and lids, a higher hairline"),
    Factor("hair_length", "state", 0, 1, "cropped to the shoulders"),
    Factor("hair_lightness", "state", 0, 1, "black to blond"),
    Factor("hair_warmth", "state", 0, 1, "ash to red"),
    Factor("hair_grey", "state", 0, 1, "share of grey in hair, brows and beard"),
    Factor("glasses", "state", 0, 1, "none to thick dark frames"),
    Factor("beard", "state", 0, 1, "shaven to full beard"),
    Factor("light_azimuth", "state", -1, 1, "light from the left (-1: 65 degrees) to the right"),
    Factor("light_strength", "state", 0, 1, "flat to hard light"),
    Factor("background_warmth", "state", -1, 1, "background blue to orange"),
    Factor("background_lightness", "state", 0, 1, "background dark to light"),
    Factor("shirt_hue", "state", -1, 1, "clothes from teal through grey to red"),
)

NAMES: tuple[str, ...] = tuple(factor.name for factor in _TABLE)
INDEX: dict[str, int] = {name: i for i, name in enumerate(NAMES)}
IDENTITY_NAMES: tuple[str, ...] = tuple(f.name for f in _TABLE if f.group == "identity")
STATE_NAMES: tuple[str, ...] = tuple(f.name for f in _TABLE if f.group == "state")


def _uniform(indices: np.ndarray, stream: int) -> np.ndarray:
    """Return uniform numbers in (0, 1), a splitmix64 hash of (seed, stream, index)."""
    with np.errstate(over="ignore"):
        x = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64((SEED * 0x632BE59BD9B4E019 + (stream + 1) * 0xD1342543DE82EF95) % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _normal(indices: np.ndarray, stream: int) -> np.ndarray:
    """Return standard normal numbers, truncated at 2.3 standard deviations."""
    uniform = torch.from_numpy(0.0107 + 0.9786 * _uniform(indices, stream))
    return torch.special.ndtri(uniform).numpy()


def _identity(indices: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the identity factors and their hidden trait."""
    trait = _normal(indices, 100)
    values = {name: 0.5 * _normal(indices, 101 + i) for i, name in enumerate(IDENTITY_NAMES)}
    for name in ("jaw_width", "brow_thickness"):
        values[name] = 0.85 * values[name] + 0.26 * trait
    values["eye_hue"] = 2 * _uniform(indices, 140) - 1
    values["skin_tone"] = 1.9 * _uniform(indices, 141) ** 1.3 - 0.95
    return values, trait


def _state(indices: np.ndarray, trait: np.ndarray) -> dict[str, np.ndarray]:
    """Return the state factors, given the hidden trait of the identity."""

    def normal(i: int) -> np.ndarray:
        return _normal(indices, 200 + i)

    def uniform(i: int) -> np.ndarray:
        return _uniform(indices, 300 + i)

    age = uniform(0)
    bearded = uniform(1) < 1 / (1 + np.exp(-(2.2 * trait - 0.9)))
    beard = np.where(bearded, 0.35 + 0.65 * uniform(2), 0.0)
    glasses = np.where(uniform(3) < 0.22 + 0.25 * age, 0.45 + 0.55 * uniform(4), 0.0)
    return {
        "yaw": 17 * normal(0),
        "pitch": 9 * normal(1),
        "smile": 0.15 + 0.45 * normal(2),
        "mouth_open": uniform(5) ** 1.6,
        "eye_open": 0.62 + 0.18 * normal(3),
        "brow_raise": 0.45 * normal(4),
        "age": age,
        "hair_length": 0.48 - 0.14 * trait - 0.16 * bearded + 0.2 * normal(5),
        "hair_lightness": uniform(6),
        "hair_warmth": uniform(7),
        "hair_grey": 1 / (1 + np.exp(-(2.2 * (age - 0.5) + 2.0 * normal(6) - 1.2))),
        "glasses": glasses,
        "beard": beard,
        "light_azimuth": 2 * uniform(8) - 1,
        "light_strength": uniform(9),
        "background_warmth": 2 * uniform(10) - 1,
        "background_lightness": uniform(11),
        "shirt_hue": 2 * uniform(12) - 1,
    }


def _as_index_array(indices) -> np.ndarray:
    array = np.asarray(indices, dtype=np.int64)
    if array.ndim != 1 or (array.size and (array.min() < 0 or array.max() >= SPLITS["accessories"].stop)):
        raise ValueError(
            f"indices: expected a flat list within [0, {SPLITS['accessories'].stop}), "
            f"got shape {array.shape}; take global indices from SPLITS"
        )
    return array


def sample_factors(indices, *, state_indices=None) -> Float[Tensor, "n k"]:
    """Return the factors of the portraits with these global indices, float32 in the units of `FACTORS`.

    Args:
        indices: global image indices, a flat sequence or tensor.
        state_indices: where given, the state is taken from these indices instead: the same
            people in other images.
    """
    who = _as_index_array(indices)
    identity, trait = _identity(who)
    state = _state(who if state_indices is None else _as_index_array(state_indices), trait)
    columns = [np.clip((identity | state)[f.name], f.low, f.high) for f in _TABLE]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


def sample_accessories(indices) -> Float[Tensor, "n 4"]:
    """Return the accessory of each image of the split `accessories`, one-hot as in `ACCESSORIES`."""
    choice = np.minimum(_uniform(_as_index_array(indices), 400) * len(ACCESSORIES), len(ACCESSORIES) - 1)
    return torch.nn.functional.one_hot(torch.from_numpy(choice.astype(np.int64)), len(ACCESSORIES)).float()


def _with_statistics(table: tuple[Factor, ...]) -> tuple[Factor, ...]:
    sample = sample_factors(np.arange(20_000)).double()
    return tuple(
        replace(f, mean=round(float(m), 4), std=round(float(s), 4))
        for f, m, s in zip(table, sample.mean(0), sample.std(0), strict=True)
    )


#: Every factor with its group, range and the mean and standard deviation of its distribution.
FACTORS: tuple[Factor, ...] = _with_statistics(_TABLE)
MEAN: Float[Tensor, " k"] = torch.tensor([f.mean for f in FACTORS])
STD: Float[Tensor, " k"] = torch.tensor([f.std for f in FACTORS])
