"""What can be taken along: a picture, an animation, the codes, and the Python that makes them again.

The codes are W, W+, F and steps in StyleSpace after the edits (arXiv 2211.11448, section 3.4). Everything is
made in memory.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pprint import pformat

import numpy as np
import safetensors.torch
from jaxtyping import UInt8
from PIL import Image

from clcae_lib.explorer.state import State
from clcae_lib.explorer.studio import Frame, Studio

Picture = UInt8[np.ndarray, "h w 3"]
MAX_FRAMES = 120
_TEMPLATE = """\
from clcae_lib.explorer import State, Studio

state = State(
{fields}
)
studio = Studio.open(state.world)
picture = studio.picture(state)  # bytes [height, width, 3]
codes = studio.inversion(state)  # w, w_plus, feature and styles after the edits
"""


def png(frame: Frame) -> bytes:
    """The picture after the edits, as a PNG file."""
    return _file([frame.after], "PNG")


def gif(studio: Studio, state: State, *, frames: int = 24, milliseconds: int = 80) -> bytes:
    """An animation, there and back, as a GIF file that repeats for ever.

    It runs over the range of the strip's control; without a strip, from no edits to all of them.

    Args:
        studio: draws it.
        state: what is drawn.
        frames: pictures on the way there; those on the way back come on top.
        milliseconds: how long each is shown.

    Raises:
        ExplorerError: the state asks for what this world does not have.
        ValueError: frames is not 2 to 120.
    """
    if not 2 <= frames <= MAX_FRAMES:
        raise ValueError(f"frames must be 2 to {MAX_FRAMES}, not {frames}")
    there = [studio.picture(s) for s in _sweep(state, frames)]
    return _file([*there, *there[-2:0:-1]], "GIF", duration=milliseconds, loop=0, save_all=True)


def codes(studio: Studio, state: State) -> bytes:
    """The codes after the edits as a safetensors file, with the state in its metadata.

    `checkpoints.load_weights(path, kind="inversion codes")` reads it.

    Raises:
        ExplorerError: the state asks for what this world does not have.
    """
    inversion = studio.inversion(state)
    tensors = {name: getattr(inversion, name) for name in ("w", "w_plus", "feature", "styles")}
    kept = {name: part.cpu().contiguous() for name, part in tensors.items() if part is not None}
    details = {"kind": "inversion codes", "world": state.world, "state": json.loads(state.to_json())}
    return safetensors.torch.save(kept, metadata={"clcae": json.dumps(details)})


def snippet(state: State) -> str:
    """Python that draws the state's picture again with the public library; `picture` holds it."""
    plain = State()
    given = {name: getattr(state, name) for name in state.__dataclass_fields__}
    told = {k: v for k, v in given.items() if v != getattr(plain, k) or k in ("world", "source")}
    fields = (f"    {k}={_literal(v)}," for k, v in told.items())
    return _TEMPLATE.format(fields="\n".join(fields))


def _literal(value: object) -> str:
    """A value as Python; mappings as plain dictionaries."""
    return pformat(dict(value) if hasattr(value, "items") else value, width=10**9)


def _sweep(state: State, frames: int) -> list[State]:
    """States over the strip's range, or with a growing share of every edit."""
    shares = np.linspace(0, 1, frames).tolist()
    if state.strip is None:
        return [replace(state, edits={k: t * s for k, s in state.edits.items()}) for t in shares]
    reach = state.strip_range
    return [state.with_edit(state.strip, (2 * t - 1) * reach) for t in shares]


def _file(pictures: Sequence[Picture], kind: str, **options) -> bytes:
    first, *others = (Image.fromarray(picture) for picture in pictures)
    file = io.BytesIO()
    extra = {"append_images": others, **options} if kind == "GIF" else {}
    first.save(file, format=kind, **extra)
    return file.getvalue()
