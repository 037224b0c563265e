"""Judges of the notebooks' exercises: one module per notebook, one function per exercise."""
