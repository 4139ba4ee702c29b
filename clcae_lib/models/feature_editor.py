"""A network that adapts F to an edit, instead of `F + G5(edited) - G5(unedited)`.

The formula (arXiv 2211.11448, section 3.4) keeps the residual `F - G5(unedited)` at its place, even if the
edit moves the face. The network is this project's addition, after the editor of arXiv 2406.10601.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import grid_sample, leaky_relu

from clcae_lib.models.config import configured

Activation = Float[Tensor, "n c h w"]


class _Block(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Activation) -> Activation:
        return x + self.second(leaky_relu(self.first(leaky_relu(x, 0.2)), 0.2))


class FeatureEditor(nn.Module):
    """Predict the residual, F minus the generator's activation, of the edited codes.

    The residual is warped by a flow, scaled and shifted, in proportion to the edit. An untrained network, or
    an edit of strength 0, does not change it.

    Args:
        side: side of F, in pixels.
        flows: number of groups of channels, each with its own flow; it divides `channels`.
    """

    @configured
    def __init__(
        self, channels: int, *, side: int = 16, width: int = 88, blocks: int = 4, flows: int = 4
    ) -> None:
        super().__init__()
        enter = nn.Conv2d(3 * channels, width, 3, padding=1)
        self.body = nn.Sequential(enter, *(_Block(width) for _ in range(blocks)))
        self.head = nn.Conv2d(width, 2 * channels + 2 * flows, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        line = (2 * torch.arange(side) + 1) / side - 1
        places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
        self.register_buffer("places", places)
        self.parts = [channels, channels, 2 * flows]

    def forward(self, residual: Activation, before: Activation, after: Activation) -> Activation:
        """Return the residual for the edited codes.

        Args:
            residual: F minus the activation of the codes.
            before: the generator's activation of the codes.
            after: that of the edited codes.
        """
        found = self.head(self.body(torch.cat([residual, before, after], dim=1))).float()
        amount = (after - before).float().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        scale, shift, flow = (found * torch.tanh(10 * amount)).split(self.parts, dim=1)
        grid = self.places + flow.unflatten(1, (-1, 2)).flatten(0, 1).movedim(1, 3) * (2 / len(self.places))
        groups = residual.float().unflatten(1, (self.parts[2] // 2, -1)).flatten(0, 1)
        moved = grid_sample(groups, grid, padding_mode="border", align_corners=False)
        return moved.view_as(residual) * (1 + scale) + shift
