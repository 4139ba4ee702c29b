"""The renderer of the `portraits` world: named factors in, a drawn portrait and its landmarks out.

Head, nose, ears, hair, neck and shoulders are ellipsoids ray-cast in 3D, so yaw and pitch are true
rotations with occlusion; eyes, brows, mouth, beard and lines are painted on the surface of the head;
glasses hang in a plane before it. Everything is arithmetic on tensors: equal factors give equal
images, and any resolution shows the same portrait.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.worlds.portraits._face import (
    Face,
    paint_age,
    paint_beard,
    paint_cheeks,
    paint_eyes,
    paint_mouth,
)
from clcae_lib.worlds.portraits._shapes import ZOOM, Canvas, Hit, clip01, per_image, smoothstep
from clcae_lib.worlds.portraits._values import Values, light, palette, rgb
from clcae_lib.worlds.portraits.factors import ACCESSORIES, NAMES

LANDMARKS = ("left_eye", "right_eye", "nose_tip", "left_mouth", "right_mouth", "chin")
_CHUNK = 4_096 * 16  # pixels per call: they stay in a core's cache


@dataclass(frozen=True)
class Rendering:
    """Images `[n, 3, R, R]` in [-1, 1] and landmarks `[n, 6, 2]` (x, y) in pixels from the top left."""

    image: Float[Tensor, "n 3 r r"]
    landmarks: Float[Tensor, "n 6 2"]


def _background(canvas: Canvas, v: Values, colours: dict[str, Tensor], worn: Tensor) -> None:
    shade = 1 - 0.12 * (canvas.y + 0.2) ** 2 - 0.06 * canvas.x**2
    colour = colours["background"] * shade.unsqueeze(1)
    stripes = 0.5 + 0.5 * torch.tanh(4 * torch.sin(14 * (canvas.x + canvas.y)))
    pattern = worn[:, ACCESSORIES.index("pattern")].view(-1, 1, 1, 1)
    canvas.colour = colour * (1 - 0.55 * pattern * stripes.unsqueeze(1))


def _solid(
    canvas: Canvas,
    v: Values,
    colour: Tensor,
    centre: Tensor,
    radii: Tensor,
    *,
    turn: Tensor | None = None,
    shade: float = 1.0,
    keep=None,
    nearer: bool = True,
) -> Hit:
    """Paint a lit ellipsoid; `keep(hit)` may cut it by a coverage."""
    upright = torch.eye(3, device=v.device).expand(v.n, 3, 3)
    hit = canvas.ellipsoid(centre, radii, upright if turn is None else turn)
    coverage = hit.coverage if keep is None else hit.coverage * keep(hit)
    canvas.paint(colour * shade * light(v, hit), coverage, hit.z if nearer else None)
    return hit


def _column(v: Values, *values) -> Tensor:
    """`[n, len(values)]` from numbers and `[n, 1, 1]` tensors."""
    filled = [torch.as_tensor(x, device=v.device).reshape(-1).expand(v.n) for x in values]
    return torch.stack([x.float() for x in filled], 1)


def _body(canvas: Canvas, v: Values, colours: dict[str, Tensor]) -> None:
    """The hair behind the shoulders, the shoulders, the neck that follows the head."""
    length = v["hair_length"]
    behind = v.in_world(torch.zeros_like(length), 0.16 - 0.40 * length, torch.full_like(length, -0.26))
    radii = _column(
        v, v.a * (0.96 + 0.34 * length), v.b * (0.76 + 0.52 * length), torch.full_like(length, 0.36)
    )
    _solid(canvas, v, colours["hair"], behind, radii, turn=v.turn, shade=0.72)
    _hair(canvas, v, colours, inside=True)
    shoulders, size = _column(v, 0.0, -1.06, -0.2), _column(v, 1.02, 0.56, 0.45)
    _solid(canvas, v, colours["shirt"], shoulders, size, nearer=False)
    base = v.in_world(torch.zeros_like(v.a), -0.62 * v.b, torch.full_like(v.a, -0.08))[:, 0]
    collar = canvas.y + 0.71 - 1.6 * (canvas.x - per_image(0.6 * base)) ** 2
    neck, size = _column(v, 0.6 * base, -0.70, 0.0), _column(v, 0.22, 0.42, 0.20)
    _solid(
        canvas,
        v,
        colours["skin"],
        neck,
        size,
        shade=0.78,
        keep=lambda hit: canvas.edge(collar),
        nearer=False,
    )


def _ears(canvas: Canvas, v: Values, colours: dict[str, Tensor], worn: Tensor) -> None:
    earring = worn[:, ACCESSORIES.index("earring")].view(-1, 1, 1)
    gold = rgb([[1.0, 0.82, 0.25]], v.device).view(1, 3, 1, 1)
    for side in (-1, 1):
        centre = v.in_world(side * (v.a + 0.015), 0 * v.a - 0.02, 0 * v.a - 0.02)
        _solid(canvas, v, colours["skin"], centre, _column(v, 0.062, 0.13, 0.09), turn=v.turn, shade=0.93)
        if earring.any():
            below = v.in_world(side * (v.a + 0.02), -0.21 + 0 * v.a, 0 * v.a)
            _solid(canvas, v, gold, below, _column(v, 0.055, 0.075, 0.055), keep=lambda hit: earring)


def _nose(canvas: Canvas, face: Face, v: Values, colours: dict[str, Tensor], lit: Tensor) -> None:
    width, height = v.nose_w, v.nose_h
    below = face.blob(face.u, face.v - v.nose_y + 0.66 * height, width * 1.4, 0.055)
    face.paint(colours["skin"] * lit * 0.55, 0.8 * below)
    centre = v.in_world(0 * v.a, v.nose_y + 0.02, v.c * 0.92)
    radii = _column(v, width, height, torch.full_like(width, 0.16))
    blush = 0.82 * colours["skin"] + 0.18 * rgb([[0.95, 0.36, 0.32]], v.device).view(1, 3, 1, 1)

    def fade(hit: Hit) -> Tensor:
        return smoothstep(height * 0.95 - hit.local[1], 0.0, 0.9 * height)

    _solid(canvas, v, blush, centre, radii, turn=v.turn, shade=1.03, keep=fade)


def _hair(canvas: Canvas, v: Values, colours: dict[str, Tensor], *, inside: bool) -> None:
    """The hair around the head: a shell with an opening for the face, seen from inside or outside."""
    length = v["hair_length"]
    thick = 0.026 + 0.095 * smoothstep(length, 0.0, 0.55)
    centre = v.in_world(0 * v.a, 0.55 * thick + 0.045, 0 * v.a - 0.045)
    radii = _column(v, v.a + thick, v.b + 0.35 * thick - 0.01, v.c + 0.05 + 0.4 * thick)
    hit = canvas.ellipsoid(centre, radii, v.turn, far=inside)
    x, y, z = hit.local
    temples = (x.abs() - 0.26).clamp(min=0)
    hairline = v.hairline - 0.04 * smoothstep(length, 0.1, 0.6) - 2.6 * temples * temples.sqrt()
    behind = 0.10 + 0.10 * smoothstep(length, 0.1, 0.7)
    above = torch.maximum(y - hairline, 0.8 * (behind - z))
    bottom = -0.02 - 0.75 * smoothstep(length, 0.12, 0.75)
    coverage = hit.coverage * canvas.edge(above, 1.4) * canvas.edge(y - bottom, 1.4)
    if inside:
        canvas.paint(colours["hair"] * 0.55, coverage)
        return
    gloss = 1 + 0.22 * torch.exp(-(((hit.normal[1] - 0.62) / 0.16) ** 2))
    strands = 1 + 0.05 * torch.sin(26 * x / (0.35 + clip01(y + 0.3)))
    canvas.paint(colours["hair"] * light(v, hit) * (gloss * strands).unsqueeze(1), coverage, hit.z)


def _glasses(canvas: Canvas, v: Values) -> None:
    """Two frames and a bridge in a plane before the face, and a temple along each side."""
    amount = v["glasses"]
    turn, pixel = v.turn, canvas.pixel
    dx, dy = canvas.x - per_image(v.centre[:, 0]), canvas.y - per_image(v.centre[:, 1])
    start = [dx * per_image(turn[:, 0, i]) + dy * per_image(turn[:, 1, i]) for i in range(3)]
    z = (v.c * 0.97 - start[2]) / per_image(turn[:, 2, 2])
    side, w = (start[0] + z * per_image(turn[:, 2, 0])).abs(), start[1] + z * per_image(turn[:, 2, 1])
    half = 0.014 + 0.018 * amount
    du, dv = (side - v.eye_x - 0.012) / 0.208, (w - v.eye_y + 0.008) / 0.178
    radius = (du.abs() * du * du + dv.abs() * dv * dv).clamp(min=1e-6) ** (1 / 3)
    frame = clip01(0.5 + (half - 0.185 * (radius - 1).abs()) / pixel)
    lens = clip01(0.5 + 0.185 * (1 - radius) / pixel)
    level = (w - v.eye_y - 0.035).abs()
    bridge = clip01(0.5 + (half * 0.9 - level) / pixel) * (side < v.eye_x - 0.18)
    wing = clip01(0.5 + (half * 0.8 - level) / pixel) * (side > v.eye_x + 0.21) * (side < v.a * 0.98)
    on = (amount > 0.02).float() * clip01(amount * 3)
    pale = rgb([[0.80, 0.88, 0.95]], v.device).view(1, 3, 1, 1)
    canvas.paint(pale, lens * on * 0.14)
    dark = rgb([[0.06, 0.06, 0.09]], v.device).view(1, 3, 1, 1)
    canvas.paint(dark, torch.maximum(torch.maximum(frame, bridge), wing) * on)


def _accessories(canvas: Canvas, face: Face, v: Values, worn: Tensor) -> None:
    """Hat and scar; earring and pattern are painted with the ears and the background."""
    hat = worn[:, ACCESSORIES.index("hat")].view(-1, 1, 1)
    scar = worn[:, ACCESSORIES.index("scar")].view(-1, 1, 1)
    mark = face.stroke(
        0.7 * (face.v + 0.13) + 0.7 * (face.u - 0.24),
        0.7 * (face.u - 0.24) - 0.7 * (face.v + 0.13),
        0.16,
        0.022,
    )
    face.paint(rgb([[0.62, 0.12, 0.14]], v.device).view(1, 3, 1, 1), mark * scar)
    if not hat.any():
        return
    felt = rgb([[0.16, 0.20, 0.48]], v.device).view(1, 3, 1, 1)
    top = v.in_world(0 * v.a, v.b * 0.86, 0 * v.a - 0.04)
    _solid(
        canvas,
        v,
        felt,
        top,
        _column(v, v.a + 0.10, 0.36, 0.58),
        turn=v.turn,
        keep=lambda hit: hat * canvas.edge(hit.local[1] + 0.10),
    )
    brim = v.in_world(0 * v.a, v.b * 0.72, 0 * v.a + 0.06)
    _solid(
        canvas,
        v,
        felt,
        brim,
        _column(v, v.a + 0.26, 0.05, 0.72),
        turn=v.turn,
        shade=0.72,
        keep=lambda hit: hat,
    )


def _draw(factors: Tensor, worn: Tensor, resolution: int) -> Tensor:
    v = Values(factors)
    canvas = Canvas(v.n, resolution, v.device)
    colours = palette(v)
    _background(canvas, v, colours, worn)
    _body(canvas, v, colours)
    radii = torch.stack([v.a, v.b, v.c], -1).view(-1, 3)
    head = canvas.ellipsoid(v.centre, radii, v.turn, profile=v.profile)
    lit = light(v, head)
    canvas.paint(colours["skin"] * lit, head.coverage, head.z)
    face = Face(canvas, head)
    scalp = face.edge(face.v - v.hairline - 0.085)
    canvas.paint(colours["hair"] * lit * 0.8, scalp * head.coverage)
    paint_cheeks(face, v, colours, lit)
    paint_age(face, v, colours, lit)
    paint_beard(face, v, colours, lit)
    paint_mouth(face, v, colours, lit)
    paint_eyes(face, v, colours, lit)
    _ears(canvas, v, colours, worn)
    _nose(canvas, face, v, colours, lit)
    _hair(canvas, v, colours, inside=False)
    _glasses(canvas, v)
    _accessories(canvas, face, v, worn)
    return canvas.colour.clamp(0, 1) * 2 - 1


def _landmarks(factors: Tensor, resolution: int) -> Tensor:
    v = Values(factors)
    corner = v.mouth_y + 0.55 * v.curve
    points = [
        v.on_surface(-v.eye_x, v.eye_y),
        v.on_surface(v.eye_x, v.eye_y),
        v.in_world(0 * v.a, v.nose_y, v.c * 0.92 + 0.15),
        v.on_surface(-v.mouth_w, corner),
        v.on_surface(v.mouth_w, corner),
        v.on_surface(0 * v.a, -0.97 * v.b),
    ]
    world = torch.stack(points, 1)
    return torch.stack([(1 + ZOOM * world[..., 0]) / 2, (1 - ZOOM * world[..., 1]) / 2], -1) * resolution


def _checked(factors: Tensor, accessories: Tensor | None) -> tuple[Tensor, Tensor]:
    if factors.ndim != 2 or factors.shape[1] != len(NAMES):
        raise ValueError(
            f"factors: expected shape [n, {len(NAMES)}] (columns NAMES), got {tuple(factors.shape)}"
        )
    if not torch.isfinite(factors).all():
        raise ValueError("factors: some values are not finite; give numbers within the ranges of FACTORS")
    if accessories is None:
        accessories = factors.new_zeros(len(factors), len(ACCESSORIES))
    if accessories.shape != (len(factors), len(ACCESSORIES)):
        raise ValueError(
            f"accessories: expected shape [{len(factors)}, {len(ACCESSORIES)}] (columns ACCESSORIES), "
            f"got {tuple(accessories.shape)}"
        )
    return factors.float(), accessories.float()


@torch.no_grad()
def render(
    factors: Float[Tensor, "n k"], *, resolution: int = 64, accessories: Float[Tensor, "n 4"] | None = None
) -> Rendering:
    """Draw portraits.

    Args:
        factors: one row per portrait, columns as in `NAMES`, in the units of `FACTORS`.
        resolution: side of the image in pixels.
        accessories: 0 or 1, columns as in `ACCESSORIES`; none if not given.

    Raises:
        ValueError: where a shape is wrong or a factor is not finite.
    """
    factors, accessories = _checked(factors, accessories)
    step = max(1, _CHUNK // resolution**2)
    parts = [
        _draw(f, a, resolution) for f, a in zip(factors.split(step), accessories.split(step), strict=True)
    ]
    empty = factors.new_zeros(0, 3, resolution, resolution)
    return Rendering(torch.cat(parts) if parts else empty, _landmarks(factors, resolution))
