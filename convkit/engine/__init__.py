"""Private: the computation of spectra and norms, by Fourier blocks, eigenvalues and Lanczos iteration."""
