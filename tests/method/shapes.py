"""Feature maps to try: even and odd sizes, axes of length 1, in 2D and 3D."""

SHAPES = [
    (2, 3, 8, 8),
    (1, 2, 7, 9),
    (1, 1, 1, 6),
    (2, 2, 4, 6, 8),
    (1, 3, 5, 7, 3),
    (1, 2, 1, 4, 5),
]


def all_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial axes that can be transformed."""
    return tuple(a for a, n in enumerate(shape[2:]) if n > 1)
