"""The measures in the tables' columns: the name in text, the unit, and the better direction.

`Recorder.metrics` takes one of these dictionaries; `docs/measures.md` has the definitions.
"""

from typing import NamedTuple


class Measure(NamedTuple):
    """A measure: its name in text, its unit, and "higher" or "lower", if either is better."""

    name: str
    unit: str = ""
    better: str = ""

    @property
    def sign(self) -> int:
        """The factor that makes higher values better: 1, or -1 if lower is better."""
        return -1 if self.better == "lower" else 1


FIDELITY = {
    "psnr": Measure("PSNR", "dB", "higher"),
    "ssim": Measure("SSIM", better="higher"),
    "identity": Measure("identity similarity", better="higher"),
    "perceptual": Measure("perceptual distance", better="lower"),
}
"""The columns of `evaluate_inversion`; `Judges.fidelity` also names the perceptual network."""

EDITS = {
    "truth_distance": Measure("distance to the true edit", better="lower"),
    "identity": Measure("edit identity similarity", better="higher"),
    "leakage": Measure("edit leakage", "sd", "lower"),
}
"""The columns of `measure_curve` for the cost of an edit."""

CODES = {
    "code_distance": Measure("code error", "sd", "lower"),
    "style_error": Measure("style error", better="lower"),
}
"""The columns of `Measured.codes` that compare inverted codes with the true ones."""

DETAILS = {
    "kept": Measure("detail kept", better="higher"),
    "kept_after_edit": Measure("detail kept after an edit", better="higher"),
}
"""The columns of `Measured.details`."""

SETS = {
    "frechet": Measure("Fréchet distance", better="lower"),
    "kernel": Measure("kernel distance", better="lower"),
}
"""The columns of `Measured.sets` that compare edited images with true edits."""

GEOMETRIC = frozenset({"yaw", "pitch", "smile", "mouth_open", "eye_open", "brow_raise"})
"""The factors of the embedded world whose edits move parts of the face; all others repaint it."""


def edit_kind(factor: str) -> str:
    """Return "geometric" if an edit of the factor moves parts of the face, else "appearance"."""
    return "geometric" if factor in GEOMETRIC else "appearance"
