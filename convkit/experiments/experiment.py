"""What the command knows of an experiment."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Experiment:
    """A table or figure by name: ``run(folder, keep)`` gives what its file of results holds, ``show`` says it in words.

    ``folder`` is where the reader has the data, for data that is not in the kit; ``keep`` is the file of finished runs.
    """

    words: str
    minutes: float  # on two cores
    run: Callable[[str | None, Path], dict[str, Any]]
    show: Callable[[dict[str, Any]], str]
    needs_folder: bool = False
