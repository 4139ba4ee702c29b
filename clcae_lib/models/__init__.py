"""The network architectures."""

from clcae_lib.models._discriminator import Discriminator
from clcae_lib.models._ops import make_kernel
from clcae_lib.models.attention import CrossAttention
from clcae_lib.models.backbone import Codes
from clcae_lib.models.config import configured
from clcae_lib.models.contrastive import ImageEncoder, LatentEncoder
from clcae_lib.models.feature_editor import FeatureEditor
from clcae_lib.models.foundation import FoundationEncoder
from clcae_lib.models.identity import ArcFace, MocoFeatures
from clcae_lib.models.published import PublishedEncoder
from clcae_lib.models.published_contrastive import PublishedImageEncoder, PublishedLatentEncoder
from clcae_lib.models.published_hfgi import PublishedHfgi
from clcae_lib.models.published_peers import PublishedPeer
from clcae_lib.models.stylegan2 import Generator
