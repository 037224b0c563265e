"""Controls around plots; the only importer of ipywidgets."""
