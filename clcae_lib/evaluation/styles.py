"""Measure how close codes are to the distribution that the generator was trained on.

The measure follows LSAP (arXiv 2209.12746): codes far from those of the generator's mapping network
reconstruct well but are hard to edit. It uses the normalised style space, in which every style channel has
mean 0 and standard deviation 1 over sampled codes.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.editing import sample_codes


@dataclass(frozen=True)
class StyleStatistics:
    """The normalised style space of a generator, with sampled codes in it.

    Attributes:
        mean, std: mean and standard deviation of each style channel over sampled codes.
        bank: normalised styles of sampled codes, as unit vectors.
    """

    generator: nn.Module
    mean: Float[Tensor, " s"]
    std: Float[Tensor, " s"]
    bank: Float[Tensor, "k s"]

    @classmethod
    @torch.no_grad()
    def of(cls, generator: nn.Module, *, samples: int = 4096, seed: int = 0) -> "StyleStatistics":
        """Return the statistics of sampled codes; a constant channel has the standard deviation 1."""
        styles = generator.styles(sample_codes(generator, samples, seed=seed)).float()
        mean, std = styles.mean(dim=0), styles.std(dim=0)
        std = torch.where(std > 0, std, torch.ones_like(std))
        return cls(generator, mean, std, normalize((styles - mean) / std, dim=1))

    @torch.no_grad()
    def measure(
        self,
        codes: Float[Tensor, "n d"] | Float[Tensor, "n l d"],
        *,
        truth: Float[Tensor, "n d"] | None = None,
    ) -> pd.DataFrame:
        """Return one row for each code with the distance of its styles to those of sampled codes.

        Columns: `style_distance`, one minus the cosine (so 0 to 2) between the code's normalised styles and
        the most similar of the bank's; `style_size`, the root mean square of the normalised styles, about 1
        for samples; and, with true codes, `style_error`, one minus the cosine to the true code's styles.
        Samples outside the bank do not have distance 0: measure some for comparison.

        Args:
            codes: predicted codes, in W or W+.
            truth: true codes in W.
        """
        styles = self._normalised(codes)
        units = normalize(styles, dim=1)
        nearest = torch.cat([(part @ self.bank.T).amax(dim=1) for part in units.split(256)])
        columns = {"style_distance": 1 - nearest, "style_size": styles.square().mean(dim=1).sqrt()}
        if truth is not None:
            columns["style_error"] = 1 - (units * normalize(self._normalised(truth), dim=1)).sum(dim=1)
        return pd.DataFrame({name: values.tolist() for name, values in columns.items()})

    def _normalised(self, codes: Tensor) -> Tensor:
        return (self.generator.styles(codes).float() - self.mean) / self.std
