"""Draws the pictures of README and docs.

`python docs/draw_pictures.py` writes method.svg and imports.svg beside this file;
`python docs/draw_pictures.py DEMO_FOLDER` also makes attack.png from the folder that
`lngswr demo -o DEMO_FOLDER --sets 2d` wrote: the examples.png of its evaluation, in fewer colours.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent
INK, GREY, BLUE, RED, GREEN = "#222222", "#eeeeee", "#cfe2f3", "#f4cccc", "#d9ead3"
ATTACK_WIDTH = 1000  # pixels


class Drawing:
    """An SVG of boxes, texts and arrows."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>',
            '<rect width="100%" height="100%" fill="white"/>',
        ]

    def box(self, x: int, y: int, width: int, height: int, text: str, fill: str = GREY) -> None:
        """A rectangle with centred lines of text."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{fill}" '
            f'stroke="{INK}"/>'
        )
        lines = text.split("\n")
        for i, line in enumerate(lines):
            below = y + height / 2 + 5 + 17 * (i - (len(lines) - 1) / 2)
            self.text(x + width / 2, below, line)

    def text(self, x: float, y: float, text: str, anchor: str = "middle") -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{INK}" marker-end="url(#tip)"/>'
        )

    def write(self, path: Path) -> None:
        path.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")


def draw_method(path: Path) -> None:
    """Above: where noise and reconstruction sit in the encoder. Below: one reconstruction."""
    drawing = Drawing(980, 390, "Layer-wise noise and selective wavelet reconstruction")
    drawing.text(20, 28, "encoder of nnU-Net", "start")
    drawing.text(6, 70, "image", "start")
    x = 50
    for name in ("stage 0", "stage 1"):
        drawing.arrow((x, 65), (x + 22, 65))
        drawing.box(x + 22, 45, 72, 40, "+ noise", RED)
        drawing.arrow((x + 94, 65), (x + 116, 65))
        drawing.box(x + 116, 45, 112, 40, "reconstruction", BLUE)
        drawing.arrow((x + 228, 65), (x + 250, 65))
        drawing.box(x + 250, 40, 82, 50, name)
        x += 332
    drawing.text(x + 20, 70, "...")
    drawing.arrow((x + 34, 65), (x + 54, 65))
    drawing.box(x + 54, 40, 96, 50, "bottleneck")
    drawing.arrow((x + 150, 65), (x + 168, 65))
    drawing.box(x + 168, 45, 72, 40, "+ noise", RED)
    drawing.text(380, 118, "noise only while training, of random strength", "start")

    drawing.arrow((220, 85), (220, 140))
    drawing.box(14, 142, 952, 236, "", "#f7fafd")
    drawing.text(30, 166, "one reconstruction:  y = iDWT(gain · DWT(x))", "start")
    drawing.text(50, 265, "x")
    drawing.arrow((62, 260), (90, 260))
    drawing.box(90, 235, 70, 50, "DWT", BLUE)
    bands = (
        ("low (LL)", "kept", GREEN),
        ("directional (LH)", "gain = 1 - a (1 - g)", BLUE),
        ("directional (HL)", "gain = 1 - a (1 - g)", BLUE),
        ("diagonal (HH)", "gain = 1 - a (1 - g)", BLUE),
    )
    for i, (band, gain, colour) in enumerate(bands):
        y = 182 + 49 * i
        drawing.arrow((160, 260), (190, 260), (190, y + 20), (230, y + 20))
        drawing.box(230, y, 140, 40, band)
        drawing.arrow((370, y + 20), (400, y + 20))
        drawing.box(400, y, 170, 40, gain, colour)
        drawing.arrow((570, y + 20), (600, y + 20), (600, 260), (640, 260))
    drawing.box(640, 235, 70, 50, "iDWT", BLUE)
    drawing.arrow((710, 260), (740, 260))
    drawing.text(752, 265, "y")
    drawing.text(775, 215, "g: constant, or Wiener's", "start")
    drawing.text(775, 235, "E / (E + N) of a prior", "start")
    drawing.text(775, 255, "measured in training", "start")
    drawing.text(775, 290, "a in [0, 1]: learned per", "start")
    drawing.text(775, 310, "channel and band", "start")
    drawing.write(path)


def draw_imports(path: Path) -> None:
    """The packages from top to bottom; imports run along the arrows only."""
    drawing = Drawing(860, 400, "Imports run one way")
    drawing.box(30, 15, 800, 40, "cli", BLUE)
    drawing.box(30, 95, 560, 40, "experiments", BLUE)
    drawing.box(30, 175, 260, 40, "trainers, planners", BLUE)
    drawing.box(330, 175, 260, 40, "evaluation", GREEN)
    drawing.box(630, 175, 200, 40, "datasets, installation", BLUE)
    drawing.box(30, 255, 260, 40, "training", BLUE)
    drawing.box(30, 335, 120, 45, "method\n(torch alone)", GREEN)
    drawing.box(170, 335, 420, 45, "attacks", BLUE)
    drawing.box(630, 335, 200, 45, "utils", GREY)
    drawing.arrow((310, 55), (310, 95))
    drawing.arrow((730, 55), (730, 175))
    drawing.arrow((160, 135), (160, 175))
    drawing.arrow((460, 135), (460, 175))
    drawing.arrow((160, 215), (160, 255))
    drawing.arrow((90, 295), (90, 335))
    drawing.arrow((230, 295), (230, 335))
    drawing.arrow((460, 215), (460, 335))
    drawing.arrow((730, 215), (730, 335))
    drawing.arrow((590, 357), (630, 357))
    drawing.text(610, 275, "all but method use utils", "middle")
    drawing.write(path)


def shrink(examples: Path, path: Path) -> None:
    """A PNG at the width of a page and in few colours, for a file of less than 200 kB."""
    from PIL import Image

    with Image.open(examples) as image:
        height = round(image.height * ATTACK_WIDTH / image.width)
        small = image.convert("RGB").resize((ATTACK_WIDTH, height), Image.Resampling.LANCZOS)
    # by maximum coverage: the median cut spends its colours on the grey image, none on the legend
    few = small.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main(arguments: list[str]) -> int:
    draw_method(DOCS / "method.svg")
    draw_imports(DOCS / "imports.svg")
    if arguments:
        found = sorted(Path(arguments[0]).glob("robustness/*/examples.png"))
        if not found:
            print(f"no robustness/*/examples.png in {arguments[0]}: run lngswr demo -o there first")
            return 2
        shrink(found[0], DOCS / "attack.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
