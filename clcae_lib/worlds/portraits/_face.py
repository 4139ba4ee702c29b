"""Painting on the front of the head: eyes, brows, cheeks, mouth, beard and the lines of age.

Both halves of a face are equal, so parts that exist twice are painted once, over `side` = |u|.
"""

import torch
from torch import Tensor

from clcae_lib.worlds.portraits._shapes import Canvas, Hit, clip01, smoothstep
from clcae_lib.worlds.portraits._values import Values, rgb


class Face:
    """Painting on the front of the head: `u` to the right, `v` up, in the head's frame."""

    def __init__(self, canvas: Canvas, hit: Hit) -> None:
        self.u, self.v = hit.local[0], hit.local[1]
        self.side = self.u.abs()
        self.canvas = canvas
        self.front = hit.coverage * smoothstep(hit.local[2], -0.02, 0.1)
        self.scale = 1 / hit.normal[2].clamp(min=0.45)

    def edge(self, distance: Tensor) -> Tensor:
        return self.canvas.edge(distance, self.scale)

    def blob(self, du: Tensor, dv: Tensor, width, height) -> Tensor:
        """Return the coverage of an ellipse with these half axes around du = dv = 0."""
        radius = ((du / width) ** 2 + (dv / height) ** 2).clamp(min=1e-6).sqrt()
        return self.edge((1 / radius - 1) * (du * du + dv * dv).sqrt())

    def stroke(self, du: Tensor, dv: Tensor, half_length, half_width) -> Tensor:
        """Return the coverage of a tapering stroke along u whose centre line is dv = 0."""
        along = 1 - (du / half_length) ** 2
        return self.edge(half_width * along.clamp(min=0).sqrt() - dv.abs()) * (along > 0)

    def paint(self, colour: Tensor, coverage: Tensor) -> None:
        self.canvas.paint(colour, coverage * self.front)


def paint_eyes(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    """Paint brows, and eyes whose outer corners sink with age and whose lower lids rise with a smile."""
    size = 1 + 0.19 * v["eye_size"]
    upper = 0.122 * size * (0.16 + 1.0 * v["eye_open"])
    lower = 0.108 * size * (0.25 + 0.75 * v["eye_open"]) * (1 - 0.62 * v.happy)
    white = rgb([[0.97, 0.97, 0.96]], v.device).view(1, 3, 1, 1) * lit.clamp(0.75, 1.05)
    dark = rgb([[0.07, 0.05, 0.06]], v.device).view(1, 3, 1, 1)
    du = face.side - v.eye_x
    dv = face.v - v.eye_y + v.droop * du.clamp(min=0)
    height = torch.where(dv > 0, upper, lower)
    socket = face.blob(du, dv - 0.015, v.eye_w * 1.17, height + 0.045)
    face.paint(colours["skin"] * lit * 0.70, socket * 0.75)
    face.paint(dark, face.blob(du, dv - 0.024, v.eye_w * 1.06, height + 0.008))
    ball = face.blob(du, dv, v.eye_w, height)
    face.paint(white, ball)
    iris, pupil = 0.096 * size, 0.044 * size
    inner, raised = du + 0.014, dv - 0.006
    distance = (inner * inner + raised * raised).sqrt()
    face.paint(colours["iris"], ball * face.edge(iris - distance))
    face.paint(dark, ball * face.edge(pupil - distance))
    shift = du * face.u.sign() - 0.03
    face.paint(torch.ones_like(white), ball * face.blob(shift, dv - 0.036, 0.022, 0.022))
    raise_ = v["brow_raise"]
    across = du - 0.008
    centre = dv - 0.215 - 0.065 * raise_ + 0.8 * across * across * (1 + 0.3 * raise_)
    coverage = face.stroke(across, centre, 0.185, 0.036 * (1 + 0.58 * v["brow_thickness"]))
    face.paint(colours["hair"] * 0.42 * lit, coverage)


def paint_cheeks(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    """Paint blush, and the round cheeks of a smile with the shadow under them."""
    du, dv = face.side - 0.275, face.v + 0.185 - 0.05 * v.happy
    round_ = face.blob(du, dv, 0.115 + 0.02 * v.happy, 0.095 + 0.015 * v.happy)
    under = face.blob(du, dv + 0.035, 0.125, 0.10) * v.happy * 0.45
    face.paint(colours["skin"] * lit * 0.72, under)
    blush = 0.72 * colours["skin"] + 0.28 * rgb([[1.0, 0.42, 0.38]], v.device).view(1, 3, 1, 1)
    face.paint(
        blush * lit * (1 + 0.10 * v.happy.unsqueeze(1)), (0.35 + 0.6 * v.happy) * (1 - 0.5 * v.old) * round_
    )


def paint_age(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    """Paint lines on the forehead and next to the eyes, bags, folds next to the mouth, hollow cheeks."""
    u, side = face.u, face.side
    line = face.stroke(u, face.v - 0.345 + 0.12 * u * u, 0.27, 0.020)
    line = torch.maximum(line, face.stroke(u, face.v - 0.425 + 0.12 * u * u, 0.22, 0.020))
    du = side - v.eye_x
    dv = face.v - v.eye_y + v.droop * du.clamp(min=0)
    line = torch.maximum(line, 0.75 * face.stroke(du, dv + 0.150 - 1.4 * du * du, 0.14, 0.022))
    fold = side - 0.15 - 0.36 * (-0.20 - face.v) - 0.05 * v["smile"]
    line = torch.maximum(line, face.stroke(face.v + 0.31, fold, 0.15, 0.024))
    hollow = face.blob(side - 0.31, face.v + 0.22, 0.07, 0.13)
    face.paint(colours["skin"] * lit * 0.78, 0.65 * hollow * v.old)
    face.paint(colours["skin"] * lit * 0.52, line * v.old * 0.9)


def paint_beard(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    amount = v["beard"]
    top = -0.21 + 1.15 * (face.side - 0.10).clamp(min=0) ** 1.6
    cheeks = smoothstep(top - face.v, -0.02, 0.05)
    moustache = face.stroke(face.u, face.v - v.mouth_y - 0.10 + 0.45 * face.u**2, 0.23, 0.05)
    coverage = torch.maximum(cheeks, moustache)
    face.paint(colours["hair"] * 0.60 * lit, coverage * clip01(0.25 + 0.75 * amount) * (amount > 0.02))


def paint_mouth(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    """Paint lips around an opening with teeth; a smile raises and widens the corners."""
    du = face.u / v.mouth_w
    square = du * du
    profile = (1 - square).clamp(min=0)
    gap = (0.100 * v["mouth_open"] + 0.022 * v.happy) * profile
    dv = face.v - v.mouth_y - v.curve * (square - 0.45) + 0.5 * gap
    lip = 0.060 * (1 + 0.60 * v["mouth_size"]) * (1 - 0.25 * v.old) * profile.sqrt()
    inside = (square < 1).float()
    dark = rgb([[0.20, 0.04, 0.06]], v.device).view(1, 3, 1, 1)
    teeth = rgb([[0.96, 0.95, 0.91]], v.device).view(1, 3, 1, 1)
    corner = face.blob(face.side - v.mouth_w, face.v - v.mouth_y - 0.55 * v.curve, 0.03, 0.04)
    face.paint(colours["skin"] * lit * 0.5, 0.8 * corner * v["smile"].abs())
    face.paint(colours["lip"] * lit, face.edge(gap + lip - dv.abs()) * inside)
    face.paint(dark, face.edge(gap + 0.012 * profile.sqrt() - dv.abs()) * inside)
    upper = face.edge(gap * 0.55 - (dv - 0.42 * gap).abs()) * smoothstep(gap, 0.012, 0.04)
    face.paint(teeth, upper * inside)
