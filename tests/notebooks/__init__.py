"""Notebooks that keep their promises; ``LINE`` is the source of a small panel for the notebooks of tests."""

LINE = """
from convkit.widgets.controls import slider
from convkit.widgets.panel import Panel
class Line(Panel):
    title, size = "A line", (3, 2)
    def controls(self):
        return {"slope": slider("slope", 1, 0, 3)}
    def draw(self, figure, slope):
        figure.subplots().plot([0, slope])
        return f"A line of slope {slope}."
"""
