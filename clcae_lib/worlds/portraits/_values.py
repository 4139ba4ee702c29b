"""Lengths, positions, colours and light of a portrait, computed from its factors."""

import torch
from torch import Tensor

from clcae_lib.worlds.portraits._shapes import Hit, clip01, rotation, smoothstep
from clcae_lib.worlds.portraits.factors import INDEX


class Values:
    """The factors of some portraits by name, each `[n, 1, 1]`, and the lengths derived from them."""

    def __init__(self, factors: Tensor) -> None:
        self.n, self.device = len(factors), factors.device
        self._factors = factors
        f = self.__getitem__
        self.turn = rotation(self.flat("yaw") * torch.pi / 180, self.flat("pitch") * torch.pi / 180)
        self.old = smoothstep(f("age"), 0.05, 1.05)
        self.happy = f("smile").clamp(min=0)
        self.a = 0.465 * (1 + 0.11 * f("head_width"))
        self.b = 0.61 * (1 + 0.075 * f("head_length"))
        self.c = torch.full_like(self.a, 0.50)
        self.taper = 0.25 - 0.31 * f("jaw_width")
        self.jowl = 0.34 * self.old
        self.centre = torch.stack(
            [
                0.10 * self.turn[:, 0, 2],
                0.01 + 0.06 * self.turn[:, 1, 2],
                torch.zeros(self.n, device=self.device),
            ],
            1,
        )
        self.eye_x = 0.222 * (1 + 0.15 * f("eye_spacing"))
        self.eye_y = torch.full_like(self.a, 0.045)
        self.eye_w = 0.160 * (1 + 0.19 * f("eye_size"))
        self.droop = 0.34 * self.old + 0.10 * self.happy
        self.nose_w = 0.096 * (1 + 0.37 * f("nose_size")) * (1 + 0.12 * self.old)
        self.nose_h = 0.150 * (1 + 0.32 * f("nose_size")) * (1 + 0.10 * self.old)
        self.nose_y = -0.135 - 0.03 * f("nose_size")
        self.mouth_y = -0.375 - 0.015 * f("nose_size")
        self.mouth_w = 0.198 * (1 + 0.30 * f("mouth_size")) * (1 + 0.20 * f("smile"))
        self.curve = 0.135 * f("smile")
        self.hairline = 0.365 + 0.13 * self.old

    def __getitem__(self, name: str) -> Tensor:
        return self._factors[:, INDEX[name]].view(-1, 1, 1)

    def flat(self, name: str) -> Tensor:
        return self._factors[:, INDEX[name]]

    def profile(self, low: Tensor) -> Tensor:
        """Return the width of the lower half of the head: a tapering jaw, cheeks that sag with age."""
        return 1 - low * (self.taper - self.jowl * (1 - low))

    def in_world(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Return world coordinates `[n, 3]` of points in the head's frame."""
        point = torch.stack([x.reshape(-1), y.reshape(-1), z.reshape(-1)], 1)
        return (self.turn @ point.unsqueeze(2)).squeeze(2) + self.centre

    def on_surface(self, x: Tensor, y: Tensor) -> Tensor:
        """Return world coordinates `[n, 3]` of the front surface of the head at (x, y) of its frame."""
        narrow = self.profile(clip01(-y / self.b) ** 2)
        rest = 1 - (y / self.b) ** 2 - (x / (self.a * narrow)) ** 2
        return self.in_world(x, y, self.c * narrow * rest.clamp(min=0).sqrt())


def rgb(values: list[list[float]], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def _blend(stops: Tensor, t: Tensor) -> Tensor:
    """Return the colour `[n, 3, 1, 1]` at `t` in [0, 1] along evenly spaced colour stops."""
    position = clip01(t.view(-1)) * (len(stops) - 1)
    low = position.floor().clamp(max=len(stops) - 2).long()
    return torch.lerp(stops[low], stops[low + 1], (position - low).unsqueeze(1)).view(-1, 3, 1, 1)


def palette(v: Values) -> dict[str, Tensor]:
    """Return the colours of each portrait, `[n, 3, 1, 1]` in [0, 1]."""
    d = v.device
    skin = _blend(
        rgb([[0.99, 0.85, 0.76], [0.90, 0.69, 0.54], [0.66, 0.45, 0.32], [0.44, 0.29, 0.21]], d),
        (v["skin_tone"] + 1) / 2,
    )
    pale = skin.mean(1, keepdim=True) * 1.04
    skin = torch.lerp(skin, pale, 0.22 * v.old.unsqueeze(1))
    ash = _blend(rgb([[0.07, 0.06, 0.07], [0.36, 0.27, 0.19], [0.88, 0.76, 0.50]], d), v["hair_lightness"])
    red = _blend(rgb([[0.20, 0.05, 0.04], [0.58, 0.20, 0.08], [0.95, 0.55, 0.25]], d), v["hair_lightness"])
    hair = torch.lerp(ash, red, clip01(v["hair_warmth"]).unsqueeze(1) ** 1.5)
    hair = torch.lerp(hair, rgb([[0.84, 0.85, 0.88]], d).view(1, 3, 1, 1), 0.95 * v["hair_grey"].unsqueeze(1))
    iris = _blend(
        rgb([[0.15, 0.40, 0.85], [0.22, 0.56, 0.26], [0.40, 0.20, 0.06]], d), (v["eye_hue"] + 1) / 2
    )
    shirt = _blend(
        rgb([[0.10, 0.42, 0.45], [0.45, 0.46, 0.50], [0.68, 0.16, 0.18]], d), (v["shirt_hue"] + 1) / 2
    )
    tint = _blend(
        rgb([[0.38, 0.58, 0.84], [0.62, 0.66, 0.62], [0.86, 0.58, 0.38]], d),
        (v["background_warmth"] + 1) / 2,
    )
    back = tint * (0.38 + 0.85 * v["background_lightness"].unsqueeze(1))
    lip = 0.42 * skin + 0.58 * rgb([[0.78, 0.18, 0.24]], d).view(1, 3, 1, 1)
    return {"skin": skin, "hair": hair, "iris": iris, "shirt": shirt, "background": back, "lip": lip}


def light(v: Values, hit: Hit) -> Tensor:
    """Return the brightness `[n, 1, R, R]`: softened Lambert, from flat to hard light."""
    azimuth = v["light_azimuth"] * (65 * torch.pi / 180)
    direction = (0.86 * azimuth.sin(), torch.full_like(azimuth, 0.51), 0.86 * azimuth.cos())
    lambert = sum(n * d for n, d in zip(hit.normal, direction, strict=True))
    soft = clip01(0.5 + 0.5 * lambert)
    strength = 0.25 + 0.65 * v["light_strength"]
    return (1.06 - strength + strength * 1.18 * soft).unsqueeze(1)
