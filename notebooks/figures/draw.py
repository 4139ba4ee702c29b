"""Draw the diagrams of the course: `python notebooks/figures/draw.py` writes the SVG files of this folder.

Shapes, weights and counts come from the library and the shipped weights. A test compares the files with what
this script draws, so that a change of the code is also a change of the diagrams.
"""
# ruff: noqa: RUF001 (multiplication signs, minus signs and dashes are meant)

import re
from html import escape
from itertools import pairwise
from pathlib import Path

from clcae_lib.models.foundation import level_of
from clcae_lib.training.alignment import AlignmentConfig
from clcae_lib.training.inversion import InversionConfig
from clcae_lib.weights import load_encoder
from clcae_lib.worlds import get_world

WORLD, TRAINING, ALIGNMENT = get_world("portraits"), InversionConfig(), AlignmentConfig()
GENERATOR = WORLD.generator()
ENCODER = load_encoder(WORLD.weights("inversion_foundation"), GENERATOR)
SIZE, DIM, LAYERS, SIDE = GENERATOR.size, GENERATOR.style_dim, GENERATOR.n_latent, TRAINING.feature_side
IMAGE, W, W_PLUS = f"[3, {SIZE}, {SIZE}]", f"[{DIM}]", f"[{LAYERS}, {DIM}]"
F = f"[{GENERATOR.channels[SIDE]}, {SIDE}, {SIDE}]"

WIDTH = 900
STYLE = """
svg { --card: #fff; --edge: #d0d7de; --ink: #1f2328; --soft: #59636e; --inverse: #fff; --band: #cfe4f5;
 --w: #0072b2; --wplus: #b84a00; --f: #00755a; --frozen: #57606a; --frozen-fill: #eef1f4; --trained: #9a6700;
 --trained-fill: #fff4d6; --copied: #a1387c; --copied-fill: #f9e9f3; }
@media (prefers-color-scheme: dark) { svg { --card: #161b22; --edge: #444c56; --ink: #e6edf3; --soft: #aab4bf;
 --inverse: #0d1117; --band: #1f405c; --w: #63b9f0; --wplus: #f2935a; --f: #45c69c; --frozen: #9aa5b1;
 --frozen-fill: #252c35; --trained: #e3b341; --trained-fill: #352b12; --copied: #e08cc0;
 --copied-fill: #38202f; } }
text { font: 13px -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: var(--ink); }
.title { font-size: 18px; font-weight: 600; } .bold { font-weight: 600; } .i { font-style: italic; }
.small { font-size: 12px; fill: var(--soft); } .formula { font-size: 16px; }
.value text { fill: var(--inverse); }
.line { fill: none; stroke: var(--soft); stroke-width: 1.6; } .head { fill: var(--soft); }
rect.card { fill: var(--card); stroke: var(--edge); } rect.band { fill: var(--band); }
rect.plain { fill: var(--card); stroke: var(--soft); stroke-width: 1.2; }
rect.frozen { fill: var(--frozen-fill); stroke: var(--frozen); stroke-width: 1.6; stroke-dasharray: 6 4; }
rect.trained { fill: var(--trained-fill); stroke: var(--trained); stroke-width: 2.4; }
rect.copied { fill: var(--copied-fill); stroke: var(--copied); stroke-width: 1.6; }
.line.dashed { stroke-dasharray: 2 5; stroke-linecap: round; }
.line.thick { stroke-width: 4; } .line.grid { stroke-width: 0.7; }
"""
VALUES = ("w", "wplus", "f")
for _look in (*VALUES, "copied"):
    STYLE += f".line.{_look} {{ stroke: var(--{_look}); }} "
    STYLE += f"rect.{_look}.value, tspan.{_look}, .head.{_look} {{ fill: var(--{_look}); }}\n"


def rich(words: str) -> str:
    """Markup of a label: `*x*` is italic, `_{x}` below the line, `^{x}` above it, `<look|x>` in a colour."""
    out = escape(words, quote=False).replace("&lt;", "<").replace("&gt;", ">")
    out = re.sub(r"<(\w+)\|([^>]*)>", r'<tspan class="\1">\2</tspan>', out)
    out = re.sub(r"\*([^*]+)\*", r'<tspan class="i">\1</tspan>', out)
    for sign, shift in (("_", 3), ("^", -5)):
        small = rf'<tspan dy="{shift}" font-size="80%">\1</tspan><tspan dy="{-shift}">&#8203;</tspan>'
        out = re.sub(rf"\{sign}\{{([^}}]*)\}}", small, out)
    return out


class Diagram:
    """An SVG image of width 900 on a card of its own, which adapts to light and dark pages.

    Args:
        height: in pixels.
        title: what is shown; drawn, and read by screen readers.
        description: the content in words, for screen readers.
    """

    def __init__(self, height: int, title: str, description: str) -> None:
        self.height, self.title, self.parts = height, title, []
        self.description = " ".join(description.split())
        self.text(28, 38, title, "title", "start")

    def rect(self, x: float, y: float, width: float, height: float, look: str, radius: float = 6) -> None:
        """Draw a rectangle from its upper left corner."""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self.parts.append(f'<rect {place} class="{look}"/>')

    def text(self, x: float, y: float, words: str, look: str = "", anchor: str = "middle") -> None:
        """Write one line whose baseline is at y."""
        place = f'x="{x:g}" y="{y:g}" class="{look}" text-anchor="{anchor}"'
        self.parts.append(f"<text {place}>{rich(words)}</text>")

    def lines(self, x: float, y: float, *lines: str, anchor: str = "middle") -> None:
        """Write lines centred around y; `# ` begins a bold one, `- ` one in small print."""
        looks = {"# ": "bold", "- ": "small"}
        for index, line in enumerate(lines):
            look = looks.get(line[:2], "")
            baseline = y + 4.5 + 17 * (index - (len(lines) - 1) / 2)
            self.text(x, baseline, line[2:] if look else line, look, anchor)

    def box(self, x: float, y: float, width: float, height: float, kind: str, *lines: str) -> None:
        """Draw a network (`trained`, `copied`, `frozen`), a value (`w`, `wplus`, `f`) or a `plain` frame."""
        value = "value" if kind in VALUES else ""
        self.rect(x, y, width, height, f"{kind} {value}", 14 if value else 6)
        if kind == "copied":  # a double line
            self.rect(x + 4, y + 4, width - 8, height - 8, kind)
        self.parts.append(f'<g class="{value}">')
        self.lines(x + width / 2, y + height / 2, *lines)
        self.parts.append("</g>")

    def arrow(self, look: str, *ways: str, links: str = "") -> None:
        """Draw arrows with round corners.

        Args:
            look: classes of the lines; may be empty.
            ways: where each starts and how it goes on, such as `40,90 H120 V60`.
            links: what is trained on what, such as `generator>alignment`, where the arrow says that.
        """
        for way in ways:
            start, *moves = way.split()
            points = [tuple(map(float, start.split(",")))]
            for move in moves:
                x, y = points[-1]
                points.append((float(move[1:]), y) if move[0] == "H" else (x, float(move[1:])))
            steps = [((c > a) - (c < a), (d > b) - (d < b)) for (a, b), (c, d) in pairwise(points)]
            path = f"M{points[0][0]:g} {points[0][1]:g}"
            for (x, y), ((a, b), (c, d)) in zip(points[1:], pairwise(steps), strict=False):
                path += f"L{x - 8 * a:g} {y - 8 * b:g}Q{x:g} {y:g} {x + 8 * c:g} {y + 8 * d:g}"
            (x, y), (a, b) = points[-1], steps[-1]
            path += f"L{x - 8 * a:g} {y - 8 * b:g}"
            head = [(x, y), *((x - 10 * a + side * b, y - 10 * b + side * a) for side in (5.5, -5.5))]
            dots = " ".join(f"{i:g},{j:g}" for i, j in head)
            self.parts.append(f'<path class="line {look}" d="{path}" data-links="{links}"/>')
            self.parts.append(f'<polygon class="head {look}" points="{dots}"/>')

    def maps(self, x: float, y: float, side: float, cells: int) -> None:
        """Draw a stack of feature maps of `cells` times `cells` pixels around a point."""
        left, top, step = x - side / 2, y - side / 2, side / cells
        for shift in (8, 4, 0):
            self.rect(left + shift, top - shift, side, side, "plain", 0)
        ways = (
            f"M{left + i * step:g} {top:g}v{side}M{left:g} {top + i * step:g}h{side}" for i in range(1, cells)
        )
        self.parts.append(f'<path class="line grid" d="{"".join(ways)}"/>')

    def face(self, x: float, y: float, side: float, turn: float = 0) -> None:
        """Draw a portrait around a point, its head turned to one side by 0 to 1."""
        a, b = 32 + 2 * turn, 32 + 7 * turn
        self.parts.append(
            f'<g transform="translate({x - side / 2:g} {y - side / 2:g}) scale({side / 64:g})">'
            '<rect width="64" height="64" rx="4" fill="#8fb3cf"/>'
            '<path d="M10 64q2-15 22-15t22 15z" fill="#4c6a86"/>'
            f'<ellipse cx="{64 - a:g}" cy="27" rx="18" ry="19" fill="#5b4636"/>'
            f'<ellipse cx="{a:g}" cy="33" rx="14" ry="17" fill="#f2c9a5"/><g fill="#33271f">'
            f'<circle cx="{b - 6:g}" cy="31" r="2.2"/><circle cx="{b + 6:g}" cy="31" r="2.2"/></g>'
            f'<path d="M{b - 5:g} 41q5 4 10 0" fill="none" stroke="#8d4b3d" stroke-width="2"/></g>'
        )

    def legend(self, y: float, **kinds: str) -> None:
        """Explain kinds of boxes in a row."""
        x = 28.0
        for kind, words in kinds.items():
            self.box(x, y, 30, 20, kind)
            self.text(x + 38, y + 15, words, "", "start")
            x += 62 + 7.4 * len(words)

    def svg(self) -> str:
        """Return the text of the file."""
        size = f'viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">\n'
        head += f'<title id="title">{escape(self.title)}</title>\n'
        head += f'<desc id="desc">{escape(self.description)}</desc>\n<style>{STYLE}</style>\n'
        head += f'<rect class="card" x="1" y="1" width="{WIDTH - 2}" height="{self.height - 2}" rx="12"/>\n'
        return head + "\n".join(self.parts) + "\n</svg>\n"


def architecture() -> Diagram:
    """Draw the inversion encoder of preset `foundation`, with its generator."""
    text = f"""A backbone turns the image {IMAGE} into three maps, and a feature pyramid these into T1, T2 and
    T3. A style block reads w {W} from T1. W+ {W_PLUS} is w plus the output of cross-attention: one query per
    layer, tokens from T1, T2 or T3. F {F} comes from cross-attention: queries from T3, tokens from T3 and W+.
    The frozen generator decodes W+, with F in place of its own activation. The backbone starts from the
    aligned image encoder, the rest of the encoder from random weights."""
    d = Diagram(632, "The inversion encoder: image to w, then W+, then F", text)
    d.face(56, 252, 64)
    d.lines(56, 322, "# image", IMAGE, "- paper 1024 px,", "- seen at 256 px")
    d.box(114, 210, 86, 84, "copied", "# backbone", "- paper", "- IR-SE50")
    d.box(230, 62, 152, 416, "trained")
    d.text(306, 84, "feature pyramid", "bold")
    for level, (y, size) in enumerate(((122, 44), (252, 56), (394, 72))):
        side, below, channels = SIZE >> 4 - level, y + size / 2, ENCODER.body.channels[2 - level]
        d.text(157, 349 - 17 * level, f"c{3 - level} [{channels}, {side}, {side}]", "small")
        d.text(252, y - 7, f"c{3 - level}", "small")
        d.arrow("", f"200,252 {'' if level == 1 else f'H215 V{y} '}H{304 - size / 2}")
        d.maps(306, y, size, side)
        paper = f"- paper [512, {16 << level}, {16 << level}]"
        d.lines(306, below + 24, f"# T{level + 1} [{DIM}, {side}, {side}]", paper)
        layers = [k for k in range(LAYERS) if level_of(k) == level]
        d.text(428, (219, 247, 275)[level], f"*i* {layers[0]}–{layers[-1]}", "small")
    d.lines(318, 198, "- up, add", anchor="start")
    d.lines(318, 332, "- up, add", anchor="start")
    d.arrow("", "90,252 H112", "306,186 V206", "306,322 V344", "338,122 H454", "404,122 V224 H454")
    d.arrow("", "344,252 H454", "352,394 H454", "404,394 V280 H454")
    query = (f"{LAYERS} queries, one", "per layer *i*,", "output + *w*")
    d.box(456, 92, 160, 60, "trained", "# style block", "one vector, + *w*_{avg}")
    d.box(456, 204, 160, 96, "trained", "# cross-attention", *query)
    query = (f"{SIDE**2} queries from T3,", "tokens T3 and W+,", "1×1 convolution")
    d.box(456, 350, 160, 88, "trained", "# cross-attention", *query)
    d.box(796, 62, 88, 476, "frozen")
    d.text(840, 84, "generator", "bold")
    d.arrow("w", "616,122 H642", "690,154 V184 H536 V202")
    d.arrow("wplus", "616,252 H642", "690,284 V328 H536 V348")
    d.arrow("f", "616,394 H642", "774,394 H832")
    d.box(644, 90, 130, 64, "w", "# w", W, "- paper [512]")
    d.box(644, 220, 130, 64, "wplus", "# W+", W_PLUS, "- paper [18, 512]")
    d.box(644, 362, 130, 64, "f", "# F", F, "- paper [512, 16, 16]")
    d.text(613, 178, "queries *w* − *w*_{avg} + *e*_{i}", "small")
    d.text(613, 322, f"{LAYERS} tokens", "small")
    for side, y in zip(GENERATOR.channels, (98, 166, 234, 430, 488), strict=True):
        d.box(828, y, 48, 36, "plain", f"- {side}×{side}")
        d.arrow("wplus", "774,252 H826" if y == 234 else f"774,252 H810 V{y + 18} H826")
    d.arrow("", "852,134 V164", "852,202 V232", "852,270 V378", "852,410 V428", "852,466 V486")
    d.arrow("", "852,524 V568 H750")
    d.box(834, 380, 36, 28, "f", "# F")
    d.text(868, 330, "G_{5}", "small")
    d.face(716, 568, 64)
    d.lines(674, 568, "# G(*w*^{+}, F)", IMAGE, anchor="end")
    d.legend(512, trained="trained from random weights", frozen="frozen")
    d.legend(544, copied="starts from the aligned image encoder, then trained")
    d.text(28, 602, "Sizes of the embedded world, and of the paper's FFHQ model", "small", "start")
    return d


def alignment() -> Diagram:
    """Draw the contrastive alignment of W and images."""
    text = """The frozen generator makes the image of a random code w. The latent encoder turns the code into
    a unit vector h^w, the image encoder the image into a unit vector h^x. A matrix has the similarity of
    every image of the batch (rows) and every code (columns). The loss is half the cross-entropy of the rows
    and half that of the columns: each image must choose its own code, and each code its own image. The
    inversion encoder later starts from the backbone of the image encoder."""
    d = Diagram(466, "Contrastive alignment: which code belongs to this image?", text)
    left, top, cell = 572, 152, 36
    d.arrow("w", "72,136 V98 H228", "72,186 V226", f"416,98 H{left + 3 * cell} V122")
    d.arrow("", "116,260 H142", "208,260 H228", f"416,260 H{left - 38}")
    d.box(28, 136, 88, 50, "w", "# w", W)
    d.text(124, 166, "random code", "small", "start")
    d.box(28, 228, 88, 64, "frozen", "# generator")
    d.face(176, 260, 64)
    d.lines(176, 312, "# G(*w*)", IMAGE)
    blocks = f"{ALIGNMENT.latent_depth} residual blocks,"
    d.box(230, 62, 186, 72, "trained", "# latent encoder", blocks, "projection")
    d.box(230, 204, 186, 112, "trained")
    d.text(323, 228, "image encoder", "bold")
    d.box(242, 240, 86, 56, "copied", "backbone")
    d.lines(371, 268, "style block,", "projection")
    d.text(474, 90, f"[{ALIGNMENT.embedding}], length 1", "small")
    d.text(474, 252, f"[{ALIGNMENT.embedding}], length 1", "small")
    d.rect(left - 3, top + 2 * cell - 1, 6 * cell + 6, cell + 2, "band")
    d.rect(left + 3 * cell - 1, top - 3, cell + 2, 6 * cell + 6, "band")
    for i, name in enumerate(("_{1}", "_{2}", "_{3}", "_{4}", "", "_{N}")):
        d.text(left + (i + 0.5) * cell, top - 10, f"*h*^{{w}}{name}" if name else "…")
        d.text(left - 18, top + (i + 0.5) * cell + 4, f"*h*^{{x}}{name}" if name else "…")
        for j in range(6):
            place = (left + j * cell + 2, top + i * cell + 2, cell - 4, cell - 4)
            d.box(*place, "w" if i == j else "plain")
    d.lines(left + 6 * cell + 12, top + 90, "# each row:", "the image", "chooses", "its code", anchor="start")
    d.lines(left + 3 * cell, top + 6 * cell + 28, "# each column:", "the code chooses its image")
    d.text(28, 356, "*Λ*_{ij} = *β* *h*^{x}_{i} · *h*^{w}_{j}, the scale *β* is learned", "", "start")
    d.text(28, 374, "loss = ½ cross-entropy of the rows + ½ of the columns", "", "start")
    scale = f"*N* = {ALIGNMENT.batch_size} pairs per step, *β* at most {ALIGNMENT.max_scale:g}"
    d.text(28, 392, scale, "small", "start")
    d.legend(
        420, trained="trained", frozen="frozen", copied="trained; later the start of the inversion encoder"
    )
    return d


def loss() -> Diagram:
    """Draw the objective of the inversion, with the default weights of preset `foundation`."""
    names = {"l2": "L2", "perceptual": "perceptual", "identity": "identity"}
    weights = {term: getattr(TRAINING, f"weight_{term}") for term in names}
    terms = ", ".join(f"{name} (weight {weights[term]:g})" for term, name in names.items())
    text = f"""The encoder gives F, W+ and w of a target image x. The frozen generator decodes three
    reconstructions, from W+ with F, from W+ and from w, and each is compared with x by {terms}. A mean
    square holds F near the generator's own activation of W+ (weight {TRAINING.weight_feature:g}), which gets
    no gradient. The aligned encoders hold w (weight {TRAINING.weight_alignment:g}): x must choose its code
    among those of the batch and {TRAINING.bank:,} random codes, and w its image in the batch. The loss is the
    sum of all terms."""
    d = Diagram(604, "The objective: three reconstructions, and two terms that hold the codes", text)
    columns = dict(zip((582, 676, 770), names, strict=True))
    d.face(56, 290, 64)
    d.lines(56, 342, "# target *x*", IMAGE)
    d.box(112, 250, 80, 80, "trained", "# encoder")
    d.box(334, 152, 92, 276, "frozen", "# generator")
    for x, term in columns.items():
        d.box(x - 44, 136, 88, 292, "plain" if term == "l2" else "frozen")
        d.text(x, 157, names[term], "bold")
    rows = (
        (194, "f", "# F", "G(*w*^{+}, F)"),
        (290, "wplus", "# W+", "G(*w*^{+})"),
        (386, "w", "# w", "G(*w*)"),
    )
    for y, kind, code, decoded in rows:
        to_code = "192,290 H228" if y == 290 else f"192,290 H210 V{y} H228"
        d.arrow(kind, to_code, f"296,{y} H332", f"426,{y} H448", f"500,{y} H832")
        d.box(230, y - 22, 66, 44, kind, code)
        d.face(474, y, 48)
        d.text(474, y + 40, decoded, "bold")
        for x, term in columns.items():
            share = TRAINING.picture_weights["w_plus" if kind == "wplus" else kind]
            d.box(x - 24, y - 14, 48, 28, kind, f"# {share * weights[term]:g}")
    d.text(676, 446, "each between the reconstruction and *x*", "small")
    d.arrow("", "90,290 H110", "380,152 V106 H446", "56,364 V522 H332")
    d.arrow("f", "263,172 V84 H446", "558,95 H832")
    d.arrow("w", "263,408 V490 H332", "558,506 H832")
    d.lines(388, 130, "- G_{5}(*w*^{+}),", "- no gradient", anchor="start")
    d.box(448, 70, 110, 50, "plain", "# mean square")
    d.box(652, 81, 48, 28, "f", f"# {TRAINING.weight_feature:g}")
    choice = ("*x* chooses *w* among batch", f"and {TRAINING.bank:,} random codes")
    d.box(334, 468, 224, 76, "frozen", "# aligned encoders", *choice)
    d.box(652, 492, 48, 28, "w", f"# {TRAINING.weight_alignment:g}")
    d.box(834, 66, 46, 478, "plain", "# loss", "= Σ")
    d.legend(562, trained="trained", frozen="frozen; gradients pass through it")
    d.text(880, 577, "F is blended in during the first half of the steps", "small", "end")
    return d


def edit() -> Diagram:
    """Draw how F follows an edit of the codes."""
    text = f"""The encoder gives W+ and F of an image. An edit adds strength times direction to W+. The
    generator's layers up to {SIDE} by {SIDE} pixels run twice: their activation is G5(w+ edit) for the edited
    codes and G5(w+) for the original ones. F edit is F plus the first minus the second. The generator's
    layers above turn F edit, with the edited codes, into the edited image."""
    d = Diagram(468, "Editing with F: add what the generator itself would change", text)
    d.face(54, 290, 60)
    d.text(54, 338, "image", "bold")
    d.box(106, 262, 78, 56, "frozen", "# encoder")
    d.arrow("wplus", "184,290 H200 V240 H218", "271,214 V150", "271,96 V66 H831 V200")
    d.arrow("f", "184,290 H200 V350 H218", "322,350 H626 V260", "644,240 H662", "762,240 H780")
    d.arrow("", "86,290 H104", "578,122 H626 V220", "578,240 H606", "831,278 V304")
    d.text(551, 60, "everything else in the image comes from the edited codes", "small")
    d.lines(262, 181, "+ strength ×", "direction", anchor="end")
    for y, code in ((122, "w^{+}_{edit}"), (240, "w^{+}")):
        d.arrow("wplus", f"322,{y} H350")
        d.arrow("", f"492,{y} H518")
        d.box(220, y - 26, 102, 52, "wplus", f"# {code}", W_PLUS)
        d.box(352, y - 30, 140, 60, "frozen", "# generator", f"layers up to {SIDE}×{SIDE}")
        d.maps(544, y, 48, SIDE)
        d.text(546, y + 44, f"G_{{5}}(*w*{code[1:]})")
    d.box(220, 324, 102, 52, "f", "# F", F)
    d.box(608, 222, 36, 36, "f", "# Σ")
    for x, y, sign in ((640, 212, "+"), (594, 230, "−"), (640, 280, "+")):
        d.text(x, y, sign, "title")
    d.box(664, 212, 98, 56, "f", "# F_{edit}", F)
    d.box(782, 202, 98, 76, "frozen", "# generator", "layers above", f"{SIDE}×{SIDE}")
    d.face(831, 336, 60, turn=0.8)
    d.text(831, 384, "edited image", "bold")
    right = "<f|F> + G_{5}(<wplus|*w*^{+}_{edit}>) − G_{5}(<wplus|*w*^{+}>)"
    d.text(430, 402, f"<f|F_{{edit}}> = {right}", "formula")
    d.legend(428, frozen="frozen; the three generator boxes are one network")
    return d


def chain() -> Diagram:
    """Draw which weights are trained on which, as the cards of the shipped weights say."""
    text = """The generator and the backbone learn from renders of the split train; in its last stage
    the generator also matches the spread of the features of perceptual a. The alignment learns from
    samples of the generator. The inversion encoders learn from renders, with the frozen generator,
    alignment and loss networks (identity a, perceptual a); that of preset foundation also starts from
    the alignment. The encoders that CLCAE is compared with start from the backbone. Oracle a learns
    from the split judge_a; identity a and perceptual a start from it, and it labels the samples from
    which directions are found. The feature editor
    learns to carry the F of preset foundation along the directions, with the same generator and loss
    networks. The copies b learn from the split judge_b and only measure."""
    d = Diagram(608, "The chain of weights: who is trained on whom", text)
    d.box(28, 66, 112, 150, "plain", "# renders", "split train")
    d.box(208, 66, 132, 52, "trained", "# backbone", "reads the factors")
    d.box(208, 164, 132, 52, "trained", "# generator", "from images")
    d.box(420, 164, 136, 52, "trained", "# alignment", "of W and images")
    d.box(420, 258, 136, 52, "trained", "# directions", "labelled samples")
    peers = ("pSp, e4e, ReStyle, HFGI", "- same generator and loss networks")
    d.box(640, 56, 236, 62, "trained", "# compared encoders", *peers)
    d.box(640, 152, 236, 158, "trained")
    d.text(758, 172, "inversion encoders", "bold")
    d.box(656, 180, 204, 54, "copied", "foundation")
    d.box(656, 246, 204, 50, "trained", "published")
    d.box(640, 466, 236, 60, "plain", "# measures", "of generator, encoders and edits")
    for y, copy, use in ((350, "a", "loss networks"), (466, "b", "evaluation networks")):
        d.box(28, y, 112, 60, "plain", "# renders", f"split judge_{copy}")
        d.box(208, y, 132, 60, "trained", f"# oracle {copy}", "reads the factors")
        d.box(420, y, 136, 60, "trained", f"# identity {copy}", f"# perceptual {copy}", f"- {use}")
        d.arrow("", f"140,{y + 30} H206", f"84,{y + 60} V{y + 78} H488 V{y + 62}")
        links = f"oracle_{copy}>identity_{copy} oracle_{copy}>perceptual_{copy}"
        d.arrow("thick copied", f"340,{y + 30} H418", links=links)
    d.arrow("", "140,92 H206", "140,190 H206", "140,130 H758 V150")
    d.arrow("", "340,190 H418", links="generator>alignment")
    d.arrow("", "240,216 V272 H418", links="generator>directions")
    d.arrow("", "240,350 V296 H418", links="oracle_a>directions")
    d.arrow("", "450,350 V330 H306 V218", links="perceptual_a>generator")
    to_both = "{0}>inversion_foundation {0}>inversion_published"
    d.arrow("", "274,216 V236 H638", links=to_both.format("generator"))
    d.arrow("", "556,178 H638", links=to_both.format("alignment"))
    judges = f"{to_both.format('identity_a')} {to_both.format('perceptual_a')}"
    d.arrow("", "616,380 V290 H638", links=judges)
    d.box(640, 346, 236, 68, "trained", "# feature editor", "carries F along edits", "- same generator")
    d.arrow("", "556,380 H638", links="identity_a>feature_editor perceptual_a>feature_editor")
    d.arrow("", "530,310 V332 H598 V362 H638", links="directions>feature_editor")
    d.arrow("", "758,310 V344", links="inversion_foundation>feature_editor generator>feature_editor")
    d.arrow("thick copied", "340,92 H638", "556,204 H654")
    d.arrow("dashed", "556,496 H638", "274,466 V448 H758 V464")
    words = ("used in its training", "weights copied as its start", "measures only")
    for x, look, meaning in zip((28, 250, 520), ("", "thick copied", "dashed"), words, strict=True):
        d.arrow(look, f"{x},578 H{x + 44}")
        d.text(x + 54, 583, meaning, "", "start")
    return d


def photograph() -> Diagram:
    """Draw the way of a photograph: aligned, inverted, edited, and pasted back."""
    text = """A square is cut from the photograph by the eyes and the mouth. The encoder finds the codes of
    this crop. The generator draws the edited codes and the unedited ones; the difference of the two images,
    under a mask that is white where they differ, goes back into the photograph."""
    d = Diagram(290, "From a photograph to an edit and back", text)
    for x, turn, words in ((78, 0, "photograph"), (836, 0.8, "edited")):
        d.rect(x - 46, 98, 92, 80, "plain")
        d.face(x, 138, 50, turn)
        d.rect(x - 29, 109, 58, 58, "line dashed", 0)
        d.text(x, 200, words, "bold")
    d.arrow("", "124,138 H146", "226,138 H246", "308,138 H326", "406,138 H424")
    d.arrow("wplus", "504,138 H518 V98 H536", "504,138 H518 V178 H536")
    d.arrow("", "636,98 H654", "636,178 H654", "718,98 H750 V118", "718,178 H750 V158", "768,138 H788")
    d.box(148, 110, 78, 56, "plain", "# align", "eyes, mouth")
    d.box(328, 110, 78, 56, "frozen", "# encoder")
    d.box(426, 110, 78, 56, "wplus", "# codes", "w, W+, F")
    d.box(732, 120, 36, 36, "plain", "# −")
    d.face(277, 138, 60)
    d.text(277, 186, "crop", "bold")
    for y, turn, codes in ((98, 0.8, "edited codes"), (178, 0, "codes")):
        d.box(538, y - 28, 98, 56, "frozen", "# generator", codes)
        d.face(687, y, 60, turn)
    d.text(750, 232, "difference × mask", "bold")
    d.legend(252, frozen="frozen; the two generator boxes are one network")
    return d


FIGURES = {draw.__name__: draw for draw in (architecture, alignment, loss, edit, chain, photograph)}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
