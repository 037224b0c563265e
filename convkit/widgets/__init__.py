"""Controls around plots; the only importer of ipywidgets."""

from convkit.loading import require

require("kit", "convkit.widgets", "ipywidgets", "matplotlib")
