"""Mark a face in an uploaded photograph: five points, by pointer or as numbers (no section of the paper)."""

import base64
import html
import re

import ipywidgets as w
import torch
from PIL import Image, ImageDraw

from clcae_lib.explorer.uploads import as_png
from clcae_lib.images import to_array
from clcae_lib.photos import Landmarks, landmarks_text, to_tensor

POINTS = ("left eye", "right eye", "tip of the nose", "left corner of the mouth", "right corner of the mouth")
SIDE = 480
"""Longer side of the displayed photograph, in pixels."""


class Marking:
    """The photograph with its marks, and their coordinates; hidden until there is a photograph.

    `points` holds the marks as text, `x,y x,y ...` in pixels of the displayed photograph.
    """

    def __init__(self) -> None:
        self.image = w.Image(format="png").add_class("clcae-mark")
        self.points = w.Text(description="Points", continuous_update=False).add_class("clcae-points")
        self.hint, self.link = w.HTML(), w.HTML()
        self.box = w.VBox([w.HTML("<b>Mark the face</b>"), self.image, self.hint, self.points, self.link])
        self.box.layout.display = "none"
        self.points.observe(lambda _: self._draw(), names="value")

    def show(self, photograph: Image.Image, name: str) -> None:
        """Show a photograph without marks."""
        self.size, self.name = photograph.size, name
        self.small = photograph.copy()
        self.small.thumbnail((SIDE, SIDE))
        self.points.value, self.box.layout.display = "", None
        self._draw()

    @property
    def face(self) -> Landmarks | None:
        """The five landmarks in pixels of the photograph; None before all are set."""
        marks = self._marks()
        if len(marks) != len(POINTS):
            return None
        scale = torch.tensor(self.size, dtype=torch.float64) / torch.tensor(self.small.size)
        return Landmarks(torch.tensor(marks, dtype=torch.float64) * scale)

    def _marks(self) -> list[tuple[float, float]]:
        numbers = [float(number) for number in re.findall(r"\d{1,4}(?:\.\d{1,3})?", self.points.value[:200])]
        return list(zip(numbers[::2], numbers[1::2], strict=False))[: len(POINTS)]

    def _draw(self) -> None:
        """Show the marks, which point is next, and after the last one a link that saves them."""
        marks, drawn, face = self._marks(), self.small.copy(), self.face
        pen = ImageDraw.Draw(drawn)
        for x, y in marks:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill="yellow", outline="black")
        self.image.value = as_png(to_array(to_tensor(drawn)), level=1)
        following = "another click starts over" if face else f"click the {POINTS[len(marks)]}"
        size = "{} x {} pixels".format(*self.small.size)
        self.hint.value = f"<p>{following}, or give the numbers x,y of the five points ({size})</p>"
        self.link.value = ""
        if face is not None:
            text = landmarks_text([face], size=self.size).encode()
            address = f"data:application/json;base64,{base64.b64encode(text).decode('ascii')}"
            name = html.escape(f"{self.name}.landmarks.json", quote=True)
            self.link.value = (
                f'<a class="clcae-save" download="{name}" href="{address}">Save the landmarks</a>'
            )
