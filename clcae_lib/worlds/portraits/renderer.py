"""The renderer of the `portraits` world: named factors in, a drawn portrait and its landmarks out.

Head, nose, ears, hair, neck and shoulders are ellipsoids ray-cast in 3D, so yaw and pitch are true
rotations with occlusion; eyes, brows, mouth, beard and lines are painted on the surface of the head;
glasses hang in a plane before it. Everything is arithmetic on tensors: equal factors give equal
pictures, and any resolution shows the same portrait.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.worlds.portraits._shapes import ZOOM, Canvas, Hit, clip01, rotation, smoothstep
from clcae_lib.worlds.portraits.factors import ACCESSORIES, INDEX, NAMES

LANDMARKS = ("left_eye", "right_eye", "nose_tip", "left_mouth", "right_mouth", "chin")
_CHUNK = 4_096 * 16  # pixels rendered at once: what stays in a core's cache


@dataclass(frozen=True)
class Rendering:
    """Pictures `[n, 3, R, R]` in [-1, 1] and landmarks `[n, 6, 2]` (x, y) in pixels from the top left."""

    image: Float[Tensor, "n 3 r r"]
    landmarks: Float[Tensor, "n 6 2"]


class _Values:
    """The factors of some portraits by name, each `[n, 1, 1]`, and the lengths derived from them."""

    def __init__(self, factors: Tensor) -> None:
        self.n, self.device = len(factors), factors.device
        self._factors = factors
        f = self.__getitem__
        self.turn = rotation(self.flat("yaw") * torch.pi / 180, self.flat("pitch") * torch.pi / 180)
        self.a = 0.49 * (1 + 0.10 * f("head_width"))
        self.b = 0.62 * (1 + 0.07 * f("head_length"))
        self.c = torch.full_like(self.a, 0.52)
        self.taper = 0.25 - 0.19 * self.flat("jaw_width")
        self.centre = torch.stack([0.10 * self.turn[:, 0, 2], 0.02 + 0.06 * self.turn[:, 1, 2],
                                   torch.zeros(self.n, device=self.device)], 1)
        self.eye_x = 0.205 * (1 + 0.16 * f("eye_spacing"))
        self.eye_y = torch.full_like(self.a, 0.05)
        self.eye_w = 0.138 * (1 + 0.17 * f("eye_size"))
        self.nose_y = -0.14 - 0.03 * f("nose_length")
        self.mouth_y = -0.33 - 0.02 * f("nose_length")
        self.mouth_w = 0.165 * (1 + 0.2 * f("mouth_width")) * (1 + 0.14 * f("smile"))

    def __getitem__(self, name: str) -> Tensor:
        return self._factors[:, INDEX[name]].view(-1, 1, 1)

    def flat(self, name: str) -> Tensor:
        return self._factors[:, INDEX[name]]

    def in_world(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """World coordinates `[n, 3]` of points of the head's frame."""
        point = torch.stack([x.reshape(-1), y.reshape(-1), z.reshape(-1)], 1)
        return (self.turn @ point.unsqueeze(2)).squeeze(2) + self.centre

    def on_surface(self, x: Tensor, y: Tensor) -> Tensor:
        """World coordinates `[n, 3]` of the front surface of the head at (x, y) of its frame."""
        low = clip01(-y / self.b)
        narrow = 1 - self.taper.view(-1, 1, 1) * low * low
        rest = 1 - (y / self.b) ** 2 - (x / (self.a * narrow)) ** 2
        return self.in_world(x, y, self.c * narrow * rest.clamp(min=0).sqrt())


def _rgb(values: list[list[float]], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def _blend(stops: Tensor, t: Tensor) -> Tensor:
    """Colour `[n, 3, 1, 1]` at `t` in [0, 1] along evenly spaced colour stops."""
    position = clip01(t.view(-1)) * (len(stops) - 1)
    low = position.floor().clamp(max=len(stops) - 2).long()
    return torch.lerp(stops[low], stops[low + 1], (position - low).unsqueeze(1)).view(-1, 3, 1, 1)


def _palette(v: _Values) -> dict[str, Tensor]:
    """The colours of each portrait, `[n, 3, 1, 1]` in [0, 1]."""
    d = v.device
    skin = _blend(_rgb([[0.98, 0.84, 0.74], [0.88, 0.66, 0.50], [0.62, 0.42, 0.29], [0.38, 0.25, 0.18]], d),
                  (v["skin_tone"] + 1) / 2)
    ash = _blend(_rgb([[0.07, 0.06, 0.07], [0.36, 0.27, 0.19], [0.88, 0.76, 0.50]], d), v["hair_lightness"])
    red = _blend(_rgb([[0.20, 0.05, 0.04], [0.58, 0.20, 0.08], [0.95, 0.55, 0.25]], d), v["hair_lightness"])
    hair = torch.lerp(ash, red, v["hair_warmth"].unsqueeze(1) ** 1.5)
    hair = torch.lerp(hair, _rgb([[0.84, 0.85, 0.88]], d).view(1, 3, 1, 1), 0.95 * v["hair_grey"].unsqueeze(1))
    iris = _blend(_rgb([[0.20, 0.42, 0.75], [0.25, 0.55, 0.32], [0.36, 0.20, 0.08]], d), (v["eye_hue"] + 1) / 2)
    shirt = _blend(_rgb([[0.10, 0.42, 0.45], [0.45, 0.46, 0.50], [0.68, 0.16, 0.18]], d), (v["shirt_hue"] + 1) / 2)
    tint = _blend(_rgb([[0.42, 0.58, 0.80], [0.62, 0.64, 0.62], [0.82, 0.58, 0.40]], d),
                  (v["background_warmth"] + 1) / 2)
    back = tint * (0.38 + 0.85 * v["background_lightness"].unsqueeze(1))
    lip = 0.55 * skin + 0.45 * _rgb([[0.75, 0.22, 0.25]], d).view(1, 3, 1, 1)
    return {"skin": skin, "hair": hair, "iris": iris, "shirt": shirt, "background": back, "lip": lip}


def _light(v: _Values, hit: Hit) -> Tensor:
    """Brightness `[n, 1, R, R]`: softened Lambert, from flat to hard light."""
    azimuth = v["light_azimuth"] * (65 * torch.pi / 180)
    direction = (0.86 * azimuth.sin(), torch.full_like(azimuth, 0.51), 0.86 * azimuth.cos())
    lambert = sum(n * d for n, d in zip(hit.normal, direction, strict=True))
    soft = clip01(0.5 + 0.5 * lambert)
    strength = 0.25 + 0.65 * v["light_strength"]
    return (1.06 - strength + strength * 1.18 * soft).unsqueeze(1)


def _background(canvas: Canvas, v: _Values, colours: dict[str, Tensor], worn: Tensor) -> None:
    shade = 1 - 0.12 * (canvas.y + 0.2) ** 2 - 0.06 * canvas.x ** 2
    colour = colours["background"] * shade.unsqueeze(1)
    stripes = 0.5 + 0.5 * torch.tanh(4 * torch.sin(14 * (canvas.x + canvas.y)))
    pattern = worn[:, ACCESSORIES.index("pattern")].view(-1, 1, 1, 1)
    canvas.colour = colour * (1 - 0.55 * pattern * stripes.unsqueeze(1))


def _solid(canvas: Canvas, v: _Values, colour: Tensor, centre: Tensor, radii: Tensor, *,
           turn: Tensor | None = None, shade: float = 1.0, keep=None, nearer: bool = True) -> Hit:
    """Paint a lit ellipsoid; `keep(hit)` may cut it by a coverage."""
    upright = torch.eye(3, device=v.device).expand(v.n, 3, 3)
    hit = canvas.ellipsoid(centre, radii, upright if turn is None else turn)
    coverage = hit.coverage if keep is None else hit.coverage * keep(hit)
    canvas.paint(colour * shade * _light(v, hit), coverage, hit.z if nearer else None)
    return hit


def _column(v: _Values, *values) -> Tensor:
    """`[n, len(values)]` from numbers and `[n, 1, 1]` tensors."""
    filled = [torch.as_tensor(x, device=v.device).reshape(-1).expand(v.n) for x in values]
    return torch.stack([x.float() for x in filled], 1)


def _body(canvas: Canvas, v: _Values, colours: dict[str, Tensor]) -> None:
    """Shoulders, the hair behind them, the neck that follows the head."""
    _solid(canvas, v, colours["shirt"], _column(v, 0.0, -1.28, -0.2), _column(v, 0.86, 0.58, 0.45))
    length = v["hair_length"]
    behind = v.in_world(torch.zeros_like(length), 0.18 - 0.42 * length, torch.full_like(length, -0.24))
    radii = _column(v, v.a * (0.96 + 0.34 * length), v.b * (0.76 + 0.52 * length), torch.full_like(length, 0.36))
    _solid(canvas, v, colours["hair"], behind, radii, turn=v.turn, shade=0.72)
    _hair(canvas, v, colours, inside=True)
    base = v.in_world(torch.zeros_like(v.a), -0.62 * v.b, torch.full_like(v.a, -0.08))
    neck = _column(v, 0.6 * base[:, 0], -0.70, 0.02)
    _solid(canvas, v, colours["skin"], neck, _column(v, 0.22, 0.42, 0.20), shade=0.86)


def _ears(canvas: Canvas, v: _Values, colours: dict[str, Tensor], worn: Tensor) -> None:
    size = 1 + 0.28 * v["ear_size"]
    for side in (-1, 1):
        centre = v.in_world(side * (v.a + 0.015), torch.zeros_like(v.a) - 0.01, torch.zeros_like(v.a) - 0.02)
        radii = _column(v, 0.055 * size, 0.125 * size, 0.085 * size)
        _solid(canvas, v, colours["skin"], centre, radii, turn=v.turn, shade=0.93)
        earring = worn[:, ACCESSORIES.index("earring")].view(-1, 1, 1)
        below = v.in_world(side * (v.a + 0.02), -0.20 + 0 * v.a, 0 * v.a)
        gold = _rgb([[1.0, 0.82, 0.25]], v.device).view(1, 3, 1, 1)
        _solid(canvas, v, gold, below, _column(v, 0.055, 0.075, 0.055), keep=lambda hit, on=earring: on)


class _Face:
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


def _eyes(face: _Face, v: _Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    open_ = v["eye_open"]
    height = 0.092 * (1 + 0.17 * v["eye_size"]) * (0.22 + 0.95 * open_)
    white = _rgb([[0.97, 0.97, 0.96]], v.device).view(1, 3, 1, 1) * lit.clamp(0.75, 1.05)
    dark = _rgb([[0.07, 0.05, 0.06]], v.device).view(1, 3, 1, 1)
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
        brow = dv - 0.175 - 0.055 * v["brow_raise"] + 0.9 * (du + side * 0.01) ** 2 * (1 + 0.3 * v["brow_raise"])
        coverage = face.stroke(du - side * 0.01, brow, 0.165, 0.032 * (1 + 0.42 * v["brow_thickness"]))
        face.paint(colours["hair"] * 0.62 * lit, coverage)


def _age_lines(face: _Face, v: _Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    """Forehead lines, bags under the eyes and folds beside the mouth."""
    amount = 0.75 * smoothstep(v["age"], 0.15, 1.0)
    line = torch.zeros_like(face.u)
    for i, y in enumerate((0.315, 0.375)):
        line = torch.maximum(line, face.stroke(face.u, face.v - y + 0.10 * face.u ** 2, 0.26 - 0.03 * i, 0.014))
    for side in (-1, 1):
        du, dv = face.u - side * v.eye_x, face.v - v.eye_y
        bag = dv + 0.135 - 1.1 * du ** 2
        line = torch.maximum(line, face.stroke(du, bag, 0.13, 0.018))
        fold = side * face.u - 0.135 - 0.34 * (-0.16 - face.v) - 0.03 * v["smile"]
        line = torch.maximum(line, face.stroke(face.v + 0.27, fold, 0.15, 0.02))
    face.paint(colours["skin"] * lit * 0.48, line * amount)
    cheek = sum(face.blob(face.u - s * 0.30, face.v + 0.17, 0.085, 0.13) for s in (-1, 1))
    face.paint(colours["skin"] * lit * 0.78, 0.5 * cheek * smoothstep(v["age"], 0.45, 1.0))


def _beard(face: _Face, v: _Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    amount = v["beard"]
    top = -0.20 + 1.15 * (face.u.abs() - 0.10).clamp(min=0) ** 1.6
    cheeks = smoothstep(top - face.v, -0.02, 0.05)
    moustache = face.stroke(face.u, face.v - v.mouth_y - 0.085 + 0.5 * face.u ** 2, 0.20, 0.05)
    coverage = torch.maximum(cheeks, moustache)
    face.paint(colours["hair"] * 0.72 * lit, coverage * clip01(0.15 + 0.85 * amount) * (amount > 0.02))


def _mouth(face: _Face, v: _Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    du = face.u / v.mouth_w
    profile = (1 - du * du).clamp(min=0)
    dv = face.v - v.mouth_y - 0.085 * v["smile"] * (du * du - 0.45)
    gap = 0.088 * v["mouth_open"] * profile
    dv = dv + 0.6 * gap
    lip = 0.040 * (1 + 0.4 * v["lip_fullness"]) * (1 - 0.25 * v["age"]) * profile.sqrt()
    inside = (du.abs() < 1).float()
    dark = _rgb([[0.16, 0.04, 0.05]], v.device).view(1, 3, 1, 1)
    teeth = _rgb([[0.96, 0.95, 0.91]], v.device).view(1, 3, 1, 1)
    face.paint(colours["lip"] * lit, face.edge(gap + lip - dv.abs()) * inside)
    slit = gap + 0.010 * profile.sqrt()
    face.paint(dark, face.edge(slit - dv.abs()) * inside)
    upper = face.edge(gap * 0.55 - (dv - 0.42 * gap).abs()) * smoothstep(gap, 0.012, 0.04)
    face.paint(teeth, upper * inside)


def _nose(canvas: Canvas, face: _Face, v: _Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    width = 0.072 * (1 + 0.28 * v["nose_width"])
    height = 0.135 * (1 + 0.22 * v["nose_length"])
    below = face.blob(face.u, face.v - v.nose_y + 0.75 * height, width * 1.45, 0.045)
    face.paint(colours["skin"] * lit * 0.62, 0.75 * below)
    centre = v.in_world(0 * v.a, v.nose_y + 0.02, v.c * 0.92)
    radii = _column(v, width, height, torch.full_like(width, 0.15))
    blush = 0.95 * colours["skin"] + 0.05 * _rgb([[0.9, 0.3, 0.3]], v.device).view(1, 3, 1, 1)
    fade = lambda hit: smoothstep(height * 0.95 - hit.local[1], 0.0, 0.9 * height)  # noqa: E731
    _solid(canvas, v, blush, centre, radii, turn=v.turn, shade=1.02, keep=fade)


def _hair(canvas: Canvas, v: _Values, colours: dict[str, Tensor], *, inside: bool) -> None:
    """The hair around the head: a shell with an opening for the face, seen from inside or outside."""
    length = v["hair_length"]
    thick = 0.028 + 0.115 * smoothstep(length, 0.0, 0.55)
    centre = v.in_world(0 * v.a, 0.55 * thick + 0.045, 0 * v.a - 0.045)
    radii = _column(v, v.a + thick, v.b + 0.35 * thick - 0.01, v.c + 0.05 + 0.4 * thick)
    hit = canvas.ellipsoid(centre, radii, v.turn, far=inside)
    x, y, z = hit.local
    hairline = 0.385 - 0.05 * smoothstep(length, 0.1, 0.6) - 2.6 * (x.abs() - 0.26).clamp(min=0) ** 1.5
    behind = 0.10 + 0.10 * smoothstep(length, 0.1, 0.7)
    above = torch.maximum(y - hairline, 0.8 * (behind - z))
    bottom = -0.02 - 0.75 * smoothstep(length, 0.12, 0.75)
    coverage = hit.coverage * canvas.edge(above, 1.4) * canvas.edge(y - bottom, 1.4)
    if inside:
        canvas.paint(colours["hair"] * 0.55, coverage)
        return
    gloss = 1 + 0.22 * torch.exp(-((hit.normal[1] - 0.62) / 0.16) ** 2)
    strands = 1 + 0.05 * torch.sin(26 * x / (0.35 + clip01(y + 0.3)))
    canvas.paint(colours["hair"] * _light(v, hit) * (gloss * strands).unsqueeze(1), coverage, hit.z)


def _glasses(canvas: Canvas, v: _Values) -> None:
    """Two frames and a bridge in a plane before the face, and a temple along each side."""
    amount = v["glasses"]
    turn, pixel = v.turn, canvas.pixel
    cell = lambda t: t.view(-1, 1, 1)  # noqa: E731
    dx, dy = canvas.x - cell(v.centre[:, 0]), canvas.y - cell(v.centre[:, 1])
    start = [dx * cell(turn[:, 0, i]) + dy * cell(turn[:, 1, i]) for i in range(3)]
    z = (v.c * 0.97 - start[2]) / cell(turn[:, 2, 2])
    u, w = start[0] + z * cell(turn[:, 2, 0]), start[1] + z * cell(turn[:, 2, 1])
    half = 0.016 + 0.018 * amount
    frame, lens = torch.zeros_like(u), torch.zeros_like(u)
    for side in (-1, 1):
        du, dv = (u - side * (v.eye_x + 0.012)) / 0.182, (w - v.eye_y + 0.006) / 0.158
        radius = (du.abs() ** 3 + dv.abs() ** 3).clamp(min=1e-6) ** (1 / 3)
        frame = torch.maximum(frame, clip01(0.5 + (half - 0.165 * (radius - 1).abs()) / pixel))
        lens = torch.maximum(lens, clip01(0.5 + 0.165 * (1 - radius) / pixel))
    bridge = clip01(0.5 + (half * 0.9 - (w - v.eye_y - 0.03).abs()) / pixel) * (u.abs() < v.eye_x - 0.16)
    wing = clip01(0.5 + (half * 0.8 - (w - v.eye_y - 0.03).abs()) / pixel)
    wing = wing * (u.abs() > v.eye_x + 0.19) * (u.abs() < v.a * 0.97)
    on = (amount > 0.02).float() * clip01(amount * 3)
    pale = _rgb([[0.80, 0.88, 0.95]], v.device).view(1, 3, 1, 1)
    canvas.paint(pale, lens * on * 0.16)
    dark = _rgb([[0.06, 0.06, 0.09]], v.device).view(1, 3, 1, 1)
    canvas.paint(dark, torch.maximum(torch.maximum(frame, bridge), wing) * on)


def _accessories(canvas: Canvas, face: _Face, v: _Values, worn: Tensor) -> None:
    """Hat and scar; earring and pattern are painted with the ears and the background."""
    hat = worn[:, ACCESSORIES.index("hat")].view(-1, 1, 1)
    scar = worn[:, ACCESSORIES.index("scar")].view(-1, 1, 1)
    mark = face.stroke(0.7 * (face.v + 0.13) + 0.7 * (face.u - 0.24), 0.7 * (face.u - 0.24) - 0.7 * (face.v + 0.13),
                       0.16, 0.022)
    face.paint(_rgb([[0.62, 0.12, 0.14]], v.device).view(1, 3, 1, 1), mark * scar)
    if not hat.any():
        return
    felt = _rgb([[0.16, 0.20, 0.48]], v.device).view(1, 3, 1, 1)
    top = v.in_world(0 * v.a, v.b * 0.86, 0 * v.a - 0.04)
    _solid(canvas, v, felt, top, _column(v, v.a + 0.10, 0.36, 0.58), turn=v.turn, keep=lambda hit: hat *
           canvas.edge(hit.local[1] + 0.10))
    brim = v.in_world(0 * v.a, v.b * 0.72, 0 * v.a + 0.06)
    _solid(canvas, v, felt, brim, _column(v, v.a + 0.26, 0.05, 0.72), turn=v.turn, shade=0.72, keep=lambda hit: hat)


def _draw(factors: Tensor, worn: Tensor, resolution: int) -> Tensor:
    v = _Values(factors)
    canvas = Canvas(v.n, resolution, v.device)
    colours = _palette(v)
    _background(canvas, v, colours, worn)
    _body(canvas, v, colours)
    radii = torch.stack([v.a, v.b, v.c], -1).view(-1, 3)
    head = canvas.ellipsoid(v.centre, radii, v.turn, taper=v.taper)
    lit = _light(v, head)
    canvas.paint(colours["skin"] * lit, head.coverage, head.z)
    face = _Face(canvas, head)
    scalp = face.edge(face.v - 0.47)
    canvas.paint(colours["hair"] * lit * 0.8, scalp * head.coverage)
    cheeks = sum(face.blob(face.u - s * 0.29, face.v + 0.15, 0.11, 0.09) for s in (-1, 1))
    face.paint(colours["lip"] * lit, 0.16 * cheeks)
    _age_lines(face, v, colours, lit)
    _beard(face, v, colours, lit)
    _mouth(face, v, colours, lit)
    _eyes(face, v, colours, lit)
    _ears(canvas, v, colours, worn)
    _nose(canvas, face, v, colours, lit)
    _hair(canvas, v, colours, inside=False)
    _glasses(canvas, v)
    _accessories(canvas, face, v, worn)
    return canvas.colour.clamp(0, 1) * 2 - 1


def _landmarks(factors: Tensor, resolution: int) -> Tensor:
    v = _Values(factors)
    corner = v.mouth_y + 0.085 * 0.55 * v["smile"]
    points = [v.on_surface(-v.eye_x, v.eye_y), v.on_surface(v.eye_x, v.eye_y),
              v.in_world(0 * v.a, v.nose_y, v.c * 0.92 + 0.15),
              v.on_surface(-v.mouth_w, corner), v.on_surface(v.mouth_w, corner),
              v.on_surface(0 * v.a, -0.97 * v.b)]
    world = torch.stack(points, 1)
    return torch.stack([(1 + ZOOM * world[..., 0]) / 2, (1 - ZOOM * world[..., 1]) / 2], -1) * resolution


def _checked(factors: Tensor, accessories: Tensor | None) -> tuple[Tensor, Tensor]:
    if factors.ndim != 2 or factors.shape[1] != len(NAMES):
        raise ValueError(f"factors: expected shape [n, {len(NAMES)}] (columns NAMES), got {tuple(factors.shape)}")
    if not torch.isfinite(factors).all():
        raise ValueError("factors: some values are not finite; give numbers within the ranges of FACTORS")
    if accessories is None:
        accessories = factors.new_zeros(len(factors), len(ACCESSORIES))
    if accessories.shape != (len(factors), len(ACCESSORIES)):
        raise ValueError(f"accessories: expected shape [{len(factors)}, {len(ACCESSORIES)}] (columns ACCESSORIES), "
                         f"got {tuple(accessories.shape)}")
    return factors.float(), accessories.float()


@torch.no_grad()
def render(factors: Float[Tensor, "n k"], *, resolution: int = 64,
           accessories: Float[Tensor, "n 4"] | None = None) -> Rendering:
    """Draw portraits.

    Args:
        factors: one row a portrait, columns as in `NAMES`, in the units of `FACTORS`.
        resolution: side of the picture in pixels.
        accessories: columns as in `ACCESSORIES`, 0 or 1; none where not given.

    Raises:
        ValueError: where a shape is wrong or a factor is not finite.
    """
    factors, accessories = _checked(factors, accessories)
    step = max(1, _CHUNK // resolution**2)
    parts = [_draw(f, a, resolution) for f, a in zip(factors.split(step), accessories.split(step), strict=True)]
    empty = factors.new_zeros(0, 3, resolution, resolution)
    return Rendering(torch.cat(parts) if parts else empty, _landmarks(factors, resolution))
