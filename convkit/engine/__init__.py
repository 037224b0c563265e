"""Private: Fourier blocks, eigenvalues and Lanczos iteration for spectra and norms; centered and scaled rows."""
