"""Interactive panels: controls around plots; the only part of the kit that imports ipywidgets."""

from convkit.loading import require

require("kit", "convkit.widgets", "ipywidgets", "anywidget", "matplotlib")
