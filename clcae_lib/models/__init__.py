"""The networks and nothing else: they know neither worlds nor training."""

from clcae_lib.models.arcface import ArcFace
from clcae_lib.models.attention import CrossAttention
from clcae_lib.models.codes import Codes
from clcae_lib.models.contrastive import ImageEncoder, LatentEncoder
from clcae_lib.models.foundation import FoundationEncoder
from clcae_lib.models.presets import build_encoder, load_alignment, load_encoder, save_alignment
from clcae_lib.models.published import PublishedEncoder, PublishedInversion
from clcae_lib.models.published_contrastive import PublishedImageEncoder, PublishedLatentEncoder
from clcae_lib.models.stylegan2 import Discriminator, Generator, load_generator, save_generator

__all__ = [
    "ArcFace",
    "Codes",
    "CrossAttention",
    "Discriminator",
    "FoundationEncoder",
    "Generator",
    "ImageEncoder",
    "LatentEncoder",
    "PublishedEncoder",
    "PublishedImageEncoder",
    "PublishedInversion",
    "PublishedLatentEncoder",
    "build_encoder",
    "load_alignment",
    "load_encoder",
    "load_generator",
    "save_alignment",
    "save_generator",
]
