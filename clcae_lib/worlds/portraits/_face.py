"""Painting on the front of the head: eyes, brows, mouth, beard and the lines of age."""

import torch
from torch import Tensor

from clcae_lib.worlds.portraits._shapes import Canvas, Hit, clip01, smoothstep
from clcae_lib.worlds.portraits._values import Values, rgb


class Face:
    """Painting on the front of the head: `u` to the right, `v` up, in the head's frame."""

    def __init__(self, canvas: Canvas, hit: Hit) -> None:
        self.u, self.v = hit.local[0], hit.local[1]
        self.canvas = canvas
        self.front = hit.coverage * smoothstep(hit.local[2], -0.02, 0.1)
        self.scale = 1 / hit.normal[2].clamp(min=0.45)

    def edge(self, distance: Tensor) -> Tensor:
        return self.canvas.edge(distance, self.scale)

    def blob(self, du: Tensor, dv: Tensor, width, height) -> Tensor:
        """Coverage of an ellipse with these half axes around du = dv = 0."""
        radius = ((du / width) ** 2 + (dv / height) ** 2).clamp(min=1e-6).sqrt()
        return self.edge((1 / radius - 1) * (du * du + dv * dv).sqrt())

    def stroke(self, du: Tensor, dv: Tensor, half_length, half_width) -> Tensor:
        """Coverage of a tapering stroke along u whose centre line is dv = 0."""
        along = 1 - (du / half_length) ** 2
        return self.edge(half_width * along.clamp(min=0).sqrt() - dv.abs()) * (along > 0)

    def paint(self, colour: Tensor, coverage: Tensor) -> None:
        self.canvas.paint(colour, coverage * self.front)


def paint_eyes(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    open_ = v["eye_open"]
    height = 0.092 * (1 + 0.17 * v["eye_size"]) * (0.22 + 0.95 * open_)
    white = rgb([[0.97, 0.97, 0.96]], v.device).view(1, 3, 1, 1) * lit.clamp(0.75, 1.05)
    dark = rgb([[0.07, 0.05, 0.06]], v.device).view(1, 3, 1, 1)
    for side in (-1, 1):
        du, dv = face.u - side * v.eye_x, face.v - v.eye_y
        socket = face.blob(du, dv - 0.012, v.eye_w * 1.16, height + 0.034)
        face.paint(colours["skin"] * lit * 0.66, socket * 0.8)
        lid = face.blob(du, dv - 0.022, v.eye_w * 1.05, height + 0.008)
        face.paint(dark, lid)
        ball = face.blob(du, dv, v.eye_w, height)
        face.paint(white, ball)
        inner = side * -0.012
        face.paint(colours["iris"], ball * face.blob(du - inner, dv, 0.074, 0.074))
        face.paint(dark, ball * face.blob(du - inner, dv, 0.036, 0.036))
        face.paint(torch.ones_like(white), ball * face.blob(du - inner - 0.028, dv - 0.028, 0.017, 0.017))
        brow = (
            dv - 0.175 - 0.055 * v["brow_raise"] + 0.9 * (du + side * 0.01) ** 2 * (1 + 0.3 * v["brow_raise"])
        )
        coverage = face.stroke(du - side * 0.01, brow, 0.165, 0.032 * (1 + 0.42 * v["brow_thickness"]))
        face.paint(colours["hair"] * 0.62 * lit, coverage)


def paint_age_lines(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    """Forehead lines, bags under the eyes and folds beside the mouth."""
    amount = 0.75 * smoothstep(v["age"], 0.15, 1.0)
    line = torch.zeros_like(face.u)
    for i, y in enumerate((0.315, 0.375)):
        line = torch.maximum(line, face.stroke(face.u, face.v - y + 0.10 * face.u**2, 0.26 - 0.03 * i, 0.014))
    for side in (-1, 1):
        du, dv = face.u - side * v.eye_x, face.v - v.eye_y
        bag = dv + 0.135 - 1.1 * du**2
        line = torch.maximum(line, face.stroke(du, bag, 0.13, 0.018))
        fold = side * face.u - 0.135 - 0.34 * (-0.16 - face.v) - 0.03 * v["smile"]
        line = torch.maximum(line, face.stroke(face.v + 0.27, fold, 0.15, 0.02))
    face.paint(colours["skin"] * lit * 0.48, line * amount)
    cheek = sum(face.blob(face.u - s * 0.30, face.v + 0.17, 0.085, 0.13) for s in (-1, 1))
    face.paint(colours["skin"] * lit * 0.78, 0.5 * cheek * smoothstep(v["age"], 0.45, 1.0))


def paint_beard(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    amount = v["beard"]
    top = -0.20 + 1.15 * (face.u.abs() - 0.10).clamp(min=0) ** 1.6
    cheeks = smoothstep(top - face.v, -0.02, 0.05)
    moustache = face.stroke(face.u, face.v - v.mouth_y - 0.085 + 0.5 * face.u**2, 0.20, 0.05)
    coverage = torch.maximum(cheeks, moustache)
    face.paint(colours["hair"] * 0.72 * lit, coverage * clip01(0.15 + 0.85 * amount) * (amount > 0.02))


def paint_mouth(face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    du = face.u / v.mouth_w
    profile = (1 - du * du).clamp(min=0)
    dv = face.v - v.mouth_y - 0.085 * v["smile"] * (du * du - 0.45)
    gap = 0.088 * v["mouth_open"] * profile
    dv = dv + 0.6 * gap
    lip = 0.040 * (1 + 0.4 * v["lip_fullness"]) * (1 - 0.25 * v["age"]) * profile.sqrt()
    inside = (du.abs() < 1).float()
    dark = rgb([[0.16, 0.04, 0.05]], v.device).view(1, 3, 1, 1)
    teeth = rgb([[0.96, 0.95, 0.91]], v.device).view(1, 3, 1, 1)
    face.paint(colours["lip"] * lit, face.edge(gap + lip - dv.abs()) * inside)
    slit = gap + 0.010 * profile.sqrt()
    face.paint(dark, face.edge(slit - dv.abs()) * inside)
    upper = face.edge(gap * 0.55 - (dv - 0.42 * gap).abs()) * smoothstep(gap, 0.012, 0.04)
    face.paint(teeth, upper * inside)
