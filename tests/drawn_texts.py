"""What a figure writes, and whether it is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib.text import Text


@dataclass(frozen=True)
class Drawn:
    """One text as it was drawn, in pixels."""

    text: str
    box: tuple[float, float, float, float]
    figure: tuple[float, float]

    @property
    def is_cut(self) -> bool:
        left, low, right, high = self.box
        width, height = self.figure
        return left < -1 or low < -1 or right > width + 1 or high > height + 1


@contextmanager
def drawn_texts(monkeypatch) -> Iterator[list[Drawn]]:
    """The texts of all figures that are saved meanwhile."""
    drawn: list[Drawn] = []
    draw = Text.draw

    def draw_and_note(self, renderer, *args, **kwargs):
        draw(self, renderer, *args, **kwargs)
        size = getattr(renderer, "width", None), getattr(renderer, "height", None)
        if self.get_visible() and self.get_text().strip() and None not in size:
            box = self.get_window_extent(renderer)
            drawn.append(Drawn(self.get_text(), tuple(box.extents), size))

    with monkeypatch.context() as patched:
        patched.setattr(Text, "draw", draw_and_note)
        yield drawn
