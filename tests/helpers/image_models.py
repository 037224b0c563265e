"""The networks of ``MODELS`` that take images."""

from convkit.models import MODELS

IMAGE_MODELS = {name: builder for name, builder in MODELS.items() if name != "dgcnn"}
