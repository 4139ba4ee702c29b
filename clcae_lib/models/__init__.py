"""The networks and nothing else: they know neither worlds nor training."""

from clcae_lib.models.stylegan2 import Discriminator, Generator, load_generator, save_generator

__all__ = ["Discriminator", "Generator", "load_generator", "save_generator"]
