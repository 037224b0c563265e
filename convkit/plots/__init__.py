"""Plots: each function draws numbers on an ax and returns it, computes nothing and sets no global style."""

from typing import TYPE_CHECKING

from convkit.loading import face, require

if TYPE_CHECKING:
    from convkit.plots.attacks import plot_answers as plot_answers
    from convkit.plots.attacks import plot_path as plot_path
    from convkit.plots.attacks import plot_regions as plot_regions
    from convkit.plots.bars import plot_bounds as plot_bounds
    from convkit.plots.bars import plot_densities as plot_densities
    from convkit.plots.bars import plot_dots as plot_dots
    from convkit.plots.bars import plot_intervals as plot_intervals
    from convkit.plots.bars import plot_ratios as plot_ratios
    from convkit.plots.bars import plot_seeds as plot_seeds
    from convkit.plots.bars import plot_table as plot_table
    from convkit.plots.curves import plot_band as plot_band
    from convkit.plots.curves import plot_bands as plot_bands
    from convkit.plots.curves import plot_by_layer as plot_by_layer
    from convkit.plots.curves import plot_channels as plot_channels
    from convkit.plots.curves import plot_curves as plot_curves
    from convkit.plots.curves import plot_folding as plot_folding
    from convkit.plots.curves import plot_growth as plot_growth
    from convkit.plots.curves import plot_layers as plot_layers
    from convkit.plots.curves import plot_plane as plot_plane
    from convkit.plots.curves import plot_points as plot_points
    from convkit.plots.curves import plot_spectra as plot_spectra
    from convkit.plots.curves import plot_symbol as plot_symbol
    from convkit.plots.curves import plot_two_spectra as plot_two_spectra
    from convkit.plots.curves import plot_wave as plot_wave
    from convkit.plots.matrices import plot_change as plot_change
    from convkit.plots.matrices import plot_frequencies as plot_frequencies
    from convkit.plots.matrices import plot_image as plot_image
    from convkit.plots.matrices import plot_kernel as plot_kernel
    from convkit.plots.matrices import plot_kernel_gradient as plot_kernel_gradient
    from convkit.plots.matrices import plot_matrix as plot_matrix
    from convkit.plots.matrices import plot_patch as plot_patch
    from convkit.plots.matrices import plot_picture as plot_picture
    from convkit.plots.spectra import plot_growth_by_part as plot_growth_by_part
    from convkit.plots.spectra import plot_layer_spectra as plot_layer_spectra
    from convkit.plots.spectra import plot_radii as plot_radii
    from convkit.plots.sphere import plot_sphere_step as plot_sphere_step
    from convkit.plots.style import BLUE as BLUE
    from convkit.plots.style import COLORS as COLORS
    from convkit.plots.style import FAINT as FAINT
    from convkit.plots.style import GRAY as GRAY
    from convkit.plots.style import GREEN as GREEN
    from convkit.plots.style import INK as INK
    from convkit.plots.style import MARKERS as MARKERS
    from convkit.plots.style import METHOD_LOOKS as METHOD_LOOKS
    from convkit.plots.style import OLIVE as OLIVE
    from convkit.plots.style import ORANGE as ORANGE
    from convkit.plots.style import PURPLE as PURPLE
    from convkit.plots.style import SIGNED as SIGNED
    from convkit.plots.style import SKY as SKY
    from convkit.plots.style import TEAL as TEAL
    from convkit.plots.style import VERMILION as VERMILION
    from convkit.plots.style import WINE as WINE
    from convkit.plots.style import method_styles as method_styles
    from convkit.plots.style import new_ax as new_ax
    from convkit.plots.style import styles as styles
    from convkit.plots.training import plot_training as plot_training

require("kit", "convkit.plots", "matplotlib")
__getattr__, __dir__, __all__ = face(__name__)
