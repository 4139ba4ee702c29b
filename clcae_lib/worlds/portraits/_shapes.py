"""Ray-casting and painting on a canvas: the few primitives from which a portrait is drawn.

The camera looks along -z (orthographic); over the image, x and y of the world
run from -1/ZOOM to 1/ZOOM, y upwards. All arrays are `[n, R, R]`, all numbers of one image
`[n, 1, 1]`. Edges are anti-aliased by coverage: a signed distance to the edge, in units of a pixel,
clipped to [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: How much the camera enlarges the scene: a head fills 80 % of the height, eyes are 13 of 64 pixels wide.
ZOOM = 1.3


def clip01(x: Tensor) -> Tensor:
    """Return `x` limited to [0, 1]."""
    return x.clamp(0.0, 1.0)


def per_image(values: Tensor) -> Tensor:
    """Return numbers `[n]` as `[n, 1, 1]`, one per image."""
    return values.view(-1, 1, 1)


def smoothstep(x: Tensor, low, high) -> Tensor:
    """Return 0 below `low`, 1 above `high`, and a cubic between."""
    t = clip01((x - low) / (high - low))
    return t * t * (3 - 2 * t)


def rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Return rotation matrices `[n, 3, 3]` from head to world; angles are in radians, `[n]`."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    turn = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    nod = torch.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).view(-1, 3, 3)
    return turn @ nod


@dataclass
class Hit:
    """The points at which the rays of an image meet a shape, all `[n, R, R]`."""

    z: Tensor
    coverage: Tensor
    local: tuple[Tensor, Tensor, Tensor]
    normal: tuple[Tensor, Tensor, Tensor]


class Canvas:
    """An image that is painted from back to front, with the depth of the last paint."""

    def __init__(self, n: int, resolution: int, device: torch.device) -> None:
        self.pixel = 2.0 / (ZOOM * resolution)
        axis = (torch.arange(resolution, device=device) + 0.5) * self.pixel - 1 / ZOOM
        self.x = axis.view(1, 1, -1)
        self.y = -axis.view(1, -1, 1)
        self.colour = torch.zeros(n, 3, resolution, resolution, device=device)
        self.depth = torch.full((n, resolution, resolution), -9.0, device=device)

    def edge(self, distance: Tensor, scale=1.0) -> Tensor:
        """Return the coverage from a signed distance (positive inside); `scale` widens the edge."""
        return clip01(0.5 + distance / (self.pixel * scale))

    def paint(self, colour: Tensor, coverage: Tensor, z: Tensor | None = None) -> None:
        """Paint over the image; with `z`, only where `z` is nearer than the last paint."""
        if z is not None:
            coverage = coverage * clip01((z - self.depth) * 40 + 0.5)
            self.depth = torch.where(coverage > 0.5, z, self.depth)
        self.colour = torch.lerp(self.colour, colour, coverage.unsqueeze(1))

    def ellipsoid(
        self,
        centre: Tensor,
        radii: Tensor,
        turn: Tensor,
        *,
        profile: Callable[[Tensor], Tensor] | None = None,
        far: bool = False,
    ) -> Hit:
        """Return the points at which the rays meet an ellipsoid.

        Args:
            centre: `[n, 3]` in world coordinates.
            radii: `[n, 3]` along the axes of its own frame.
            turn: `[n, 3, 3]` from its frame to the world.
            profile: width of the lower half, as a share of the ellipsoid's, of the square of the depth
                below the middle (0 in the middle, 1 at the lower end).
            far: meet the side that faces away: the inside of a shell.
        """
        dx, dy = self.x - per_image(centre[:, 0]), self.y - per_image(centre[:, 1])
        start = [dx * per_image(turn[:, 0, i]) + dy * per_image(turn[:, 1, i]) for i in range(3)]
        step = [per_image(turn[:, 2, i]) for i in range(3)]
        inverse = [1 / per_image(radii[:, i]) for i in range(3)]
        narrow = torch.ones_like(start[0])
        z = torch.zeros_like(narrow)
        for _ in range(1 if profile is None else 3):
            if profile is not None:
                low = clip01(-(start[1] + z * step[1]) * inverse[1])
                narrow = 1 / profile(low * low)
            p = [start[0] * inverse[0] * narrow, start[1] * inverse[1], start[2] * inverse[2] * narrow]
            d = [step[0] * inverse[0] * narrow, step[1] * inverse[1], step[2] * inverse[2] * narrow]
            a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
            b = p[0] * d[0] + p[1] * d[1] + p[2] * d[2]
            c = p[0] * p[0] + p[1] * p[1] + p[2] * p[2]
            nearest = c - b * b / a
            half = ((1 - nearest).clamp(min=0) * a).sqrt()
            z = (-b - half if far else -b + half) / a
        radius = nearest.clamp(min=1e-6).sqrt()
        coverage = self.edge((1 / radius - 1) * (dx * dx + dy * dy).sqrt())
        local = tuple(s + z * t for s, t in zip(start, step, strict=True))
        return Hit(z + per_image(centre[:, 2]), coverage, local, _normal(local, inverse, narrow, turn))


def _normal(local, inverse, narrow: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit normals, in the world, of the points `local` of an ellipsoid."""
    g = [
        local[0] * (inverse[0] * narrow) ** 2,
        local[1] * inverse[1] ** 2,
        local[2] * (inverse[2] * narrow) ** 2,
    ]
    length = (g[0] * g[0] + g[1] * g[1] + g[2] * g[2]).clamp(min=1e-8).rsqrt()
    return tuple(sum(g[j] * turn[:, i, j].view(-1, 1, 1) for j in range(3)) * length for i in range(3))
