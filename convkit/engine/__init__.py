"""How spectra are computed: Fourier blocks, eigenvalues, Lanczos iteration. Private: nothing outside relies on it."""
