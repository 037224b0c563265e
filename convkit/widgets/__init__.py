"""Controls around plots; the only importer of ipywidgets."""

from convkit.loading import needs

with needs("kit", "convkit.widgets"):
    import ipywidgets  # noqa: F401
    import matplotlib  # noqa: F401
