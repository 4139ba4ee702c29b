"""Export a state: an image, an animation, the codes, and Python that computes them again.

The codes are W, W+, F and steps in StyleSpace after the edits (arXiv 2211.11448, section 3.4). Files are
made in memory.
"""

import io
import json
from dataclasses import fields, replace
from pprint import pformat

import numpy as np
import safetensors.torch
from PIL import Image

from clcae_lib.explorer.state import State
from clcae_lib.explorer.studio import Frame, Studio
from clcae_lib.explorer.uploads import as_png

MAX_FRAMES = 120
_MILLISECONDS = 80
_TEMPLATE = """\
from clcae_lib.explorer import State, Studio

state = State(
{fields}
)
studio = Studio.open(state.world)
image = studio.image(state)  # bytes [height, width, 3]
codes = studio.inversion(state)  # w, w_plus, feature and styles after the edits
"""


def png(frame: Frame) -> bytes:
    """Return the image after the edits, as a PNG file."""
    return as_png(frame.after)


def gif(studio: Studio, state: State, *, frames: int = 24) -> bytes:
    """Return an endless animation, forward and backward, as a GIF file.

    It shows the range of the strip's control; without a strip, the way from no edits to all of them. There
    are `frames` images (2 to 120, else a ValueError) in each direction, each shown for 80 ms.
    """
    if not 2 <= frames <= MAX_FRAMES:
        raise ValueError(f"frames must be 2 to {MAX_FRAMES}, not {frames}")
    shares = np.linspace(0, 1, frames).tolist()
    if state.strip is None:
        sweep = [replace(state, edits={k: t * s for k, s in state.edits.items()}) for t in shares]
    else:
        sweep = [state.with_edit(state.strip, (2 * t - 1) * state.strip_range) for t in shares]
    there = [Image.fromarray(studio.image(s)) for s in sweep]
    file, others = io.BytesIO(), [*there[1:], *there[-2:0:-1]]
    there[0].save(file, "GIF", save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
    return file.getvalue()


def codes(studio: Studio, state: State) -> bytes:
    """Return the codes after the edits as a safetensors file, with the state in its metadata.

    `checkpoints.load_weights(path, kind="inversion codes")` reads it.
    """
    inversion = studio.inversion(state)
    tensors = {name: getattr(inversion, name) for name in ("w", "w_plus", "feature", "styles")}
    kept = {name: part.cpu().contiguous() for name, part in tensors.items() if part is not None}
    details = {"kind": "inversion codes", "world": state.world, "state": json.loads(state.to_json())}
    return safetensors.torch.save(kept, metadata={"clcae": json.dumps(details)})


def snippet(state: State) -> str:
    """Return Python code that computes the state's image, as `image`, with the public library."""
    plain, lines = State(), []
    for name in (f.name for f in fields(State)):
        value = getattr(state, name)
        if value != getattr(plain, name) or name in ("world", "source"):
            value = dict(value) if name == "edits" else value
            lines.append(f"    {name}={pformat(value, width=10**9)},")
    return _TEMPLATE.format(fields="\n".join(lines))
