"""How near predicted codes lie to the true ones, and to what the generator was trained to decode.

The alignment measure follows the idea of LSAP (arXiv 2209.12746): codes far from those that the
generator's own
mapping makes reconstruct well and edit badly. It is looked at in the normalised style space, where every
channel of the styles has mean 0 and standard deviation 1 over sampled codes.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize


def code_distance(
    found: Float[Tensor, "n d"], truth: Float[Tensor, "n d"], *, w_std: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """The root mean square distance of each code to the true one, in standard deviations of W.

    The unit is the root mean square of W's standard deviations. The mean code is about 1 away from a sample,
    two unrelated samples are about 1.4 apart.
    """
    return (found - truth).square().mean(dim=1).sqrt() / w_std.square().mean().sqrt()


@dataclass(frozen=True)
class StyleSpace:
    """The normalised style space of a generator, with a bank of sampled codes in it.

    Attributes:
        mean, std: of each style channel over sampled codes.
        bank: normalised styles of sampled codes, as unit vectors.
    """

    mean: Float[Tensor, " s"]
    std: Float[Tensor, " s"]
    bank: Float[Tensor, "k s"]

    @classmethod
    @torch.no_grad()
    def of(cls, generator: nn.Module, *, samples: int = 4096, seed: int = 0) -> "StyleSpace":
        """The space measured on sampled codes; channels that never change are given a deviation of one."""
        w = generator.sample_w(samples, generator=torch.Generator().manual_seed(seed))
        styles = generator.styles(w).float()
        mean, std = styles.mean(dim=0), styles.std(dim=0)
        std = torch.where(std > 0, std, torch.ones_like(std))
        return cls(mean, std, normalize((styles - mean) / std, dim=1))

    @torch.no_grad()
    def normalised(
        self, generator: nn.Module, codes: Float[Tensor, "n d"] | Float[Tensor, "n l d"]
    ) -> Float[Tensor, "n s"]:
        """The normalised styles of codes of W or W+."""
        return (generator.styles(codes).float() - self.mean) / self.std


@torch.no_grad()
def style_alignment(
    generator: nn.Module,
    codes: Float[Tensor, "n d"] | Float[Tensor, "n l d"],
    *,
    space: StyleSpace,
    truth: Float[Tensor, "n d"] | None = None,
    chunk: int = 256,
) -> pd.DataFrame:
    """One row for each code: how far its styles are from those of sampled codes.

    Columns: `style_distance`, one minus the cosine (so 0 to 2) between the code's normalised styles and
    the most
    similar of the bank's; `style_size`, the root mean square of the normalised styles, whose mean square over
    samples is 1; and, with true codes, `style_error`, one minus the cosine to the true code's own. Samples
    that are not in the bank are not at distance 0 either: give some, and read the difference to them.

    Args:
        generator: whose styles they are.
        codes: predicted, in W or W+.
        space: from `StyleSpace.of` of the same generator.
        truth: the true codes in W, where they are known.
        chunk: codes compared with the bank at once.
    """
    styles = space.normalised(generator, codes)
    units = normalize(styles, dim=1)
    nearest = torch.cat([(part @ space.bank.T).amax(dim=1) for part in units.split(chunk)])
    columns = {"style_distance": 1 - nearest, "style_size": styles.square().mean(dim=1).sqrt()}
    if truth is not None:
        own = normalize(space.normalised(generator, truth), dim=1)
        columns["style_error"] = 1 - (units * own).sum(dim=1)
    return pd.DataFrame({name: values.tolist() for name, values in columns.items()})
