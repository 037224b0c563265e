"""Tools of the notebooks: checked claims, exercises with judges and hints, figures with descriptions, builds."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.teaching.checks import check as check
    from convkit.teaching.checks import check_that as check_that
    from convkit.teaching.checks import exercise as exercise
    from convkit.teaching.checks import hints as hints
    from convkit.teaching.copies import copy_notebooks as copy_notebooks
    from convkit.teaching.copies import write_handout as write_handout
    from convkit.teaching.notebooks import build as build
    from convkit.teaching.notebooks import execute as execute
    from convkit.teaching.notebooks import read_notebook as read_notebook
    from convkit.teaching.notebooks import stored as stored
    from convkit.teaching.pictures import show as show

__getattr__, __dir__, __all__ = face(__name__)
