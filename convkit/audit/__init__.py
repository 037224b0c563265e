"""Norms of the layers of a network: tables, gains of normalization layers, a Lipschitz bound, norms in training."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.audit.measurement import measure as measure
    from convkit.audit.product.bound import product_bound as product_bound
    from convkit.audit.table import LayerRecord as LayerRecord
    from convkit.audit.table import LayerTable as LayerTable
    from convkit.audit.table import fourier_relative as fourier_relative
    from convkit.audit.table import layer_table as layer_table
    from convkit.audit.tracker import NormTracker as NormTracker
    from convkit.normalization.folding import channel_gains as channel_gains
    from convkit.normalization.folding import fold_batchnorm as fold_batchnorm
    from convkit.normalization.folding import with_gain as with_gain

__getattr__, __dir__, __all__ = face(__name__)
