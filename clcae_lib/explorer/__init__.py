"""The explorer: states, the studio that draws them, uploads and exports (arXiv 2211.11448, section 4.3)."""

from clcae_lib.explorer.controls import Control, find_controls
from clcae_lib.explorer.export import codes, gif, png, snippet
from clcae_lib.explorer.identity import identity_basis
from clcae_lib.explorer.state import ExplorerError, History, State
from clcae_lib.explorer.studio import Frame, Studio
from clcae_lib.explorer.uploads import as_text, from_text, read_upload
