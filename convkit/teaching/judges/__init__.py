"""Who judges the exercises: a module for each notebook, its functions named after the exercises."""
