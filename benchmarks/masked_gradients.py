"""Is a model's robustness real, or are its gradients masked? Six checks on a model folder and, as the control, on a reference.

    python benchmarks/masked_gradients.py -m MODEL_FOLDER --reference VANILLA_FOLDER -f FOLD [--max-cases 8] [-o OUT.json] [--picture OUT.png]

Everything goes through the sliding window that the model deploys and the project's attacks, by evaluation.run_case: Linf, epsilon as a fraction
of the case's range, loss CE; Dice of the segmentation that nnU-Net would export, mean over the cases. Checklist: Carlini et al. 2019, "On evaluating
adversarial robustness", section 5; signs of obfuscated gradients: Athalye, Carlini & Wagner 2018, section 3.1. Rules, on means over cases, with
TOLERANCE for chance:

    transfer    PGD made on the other model must not lower Dice further than PGD made on this one.
    black box   Neither the square attack (no gradients) nor random signs may lower Dice further than PGD at the same budget.
    steps       PGD with 1, 2, 5, ... steps: the longest must lie below clean and not above the shortest (iterating must help). Unsettled: Dice
                rises between neighbours, or still falls by more than LEVEL at the end, so that the figure is only an upper bound.
    radius      At the largest epsilon Dice must be at most ZERO: an unbounded attack succeeds. Unsettled: a larger ball gives a higher Dice,
                above ZERO.
    surface     Along the PGD direction the loss must rise, and further than along a random sign direction of the same size; and the gradient
                must predict what a small step does (central difference over epsilon / 32 along its sign, relative error at most
                GRADIENT_ERROR). Unsettled: the mean loss falls somewhere on the way.
    adaptive    Two evaluations, gradients included, must be bit-equal under different random states: else the model is random and an attack must
                average (EOT). The gradient with the reconstruction's gains detached must equal the full gradient: gains are constants of
                the model, so that there is nothing an adaptive attacker could use beyond what our attacks differentiate. Unsettled: it
                does not, and the attacks must differentiate through the gains (ours do).

Finished cases are kept beside OUT.json: the same command goes on where a killed one was.

A rule that is broken reads "masked", else "passes" or "unsettled". Passing is necessary, not sufficient: the checks find gradients that mislead, not
attacks that nobody has thought of.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # model_pair lies beside this script

import numpy as np
import torch
from matplotlib.figure import Figure
from model_pair import Pair, load, mean, parser, write_json, write_picture
from torch import nn
from tqdm import tqdm

from evaluation import significance
from evaluation.inputs import CaseFiles
from evaluation.model.case import Case
from evaluation.model.folder import SegmentationModel
from evaluation.protocol import LINF, EvaluationRun, Options, budget_text, parse_budget
from evaluation.report.cases_table import MEAN_LABEL
from evaluation.report.figures import COLOURS
from evaluation.run_case import run_case
from nnunetv2_lngswr.attacks import ThreatModel, run_attack
from nnunetv2_lngswr.attacks.base import clip, project_onto_ball, random_direction, step_direction
from nnunetv2_lngswr.attacks.losses import cross_entropy
from nnunetv2_lngswr.experiments.overhead import conditions
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.markdown import markdown_table

TOLERANCE = 0.01  # Dice; attacks are random and cases few
LEVEL = 0.02  # Dice
ZERO = 0.05  # Dice
GRADIENT_ERROR = 0.25
PASSES, UNSETTLED, MASKED = "passes", "unsettled", "masked"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """`epsilon`: of all checks but the radius. `attack_steps`: of PGD wherever its steps are not swept, and of transfer. `queries`: of square.
    `grid`: points per axis of the loss surface, odd, so that 0 is among them. Budgets are fractions of the range."""

    epsilon: Fraction = Fraction(8, 255)
    attack_steps: int = 10
    step_sweep: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    radii: tuple[Fraction, ...] = (
        Fraction(4, 255),
        Fraction(16, 255),
        Fraction(32, 255),
        Fraction(64, 255),
    )
    queries: int = 200
    grid: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.grid < 3 or self.grid % 2 == 0:
            raise ValueError(f"grid must be odd and at least 3, got {self.grid}")
        if not self.epsilon > 0 or not self.step_sweep:
            raise ValueError(
                f"epsilon must be > 0 and step_sweep hold a number of steps, got {self.epsilon} and {self.step_sweep}"
            )

    def runs(self) -> list[EvaluationRun]:
        """What evaluation.run_case is told to run. One name, hence one seed: the sweeps differ by steps or radius and not by their start."""
        sweep = sorted({*self.step_sweep, self.attack_steps})
        return [
            EvaluationRun(kind="clean", name="clean"),
            *(_attack("pgd_linf", self.epsilon, steps) for steps in sweep),
            *(
                _attack("pgd_linf", radius, self.attack_steps)
                for radius in sorted({*self.radii} - {self.epsilon})
            ),
            _attack("transfer", self.epsilon, self.attack_steps),
            _attack("square", self.epsilon, self.queries, gradients=0),
            _attack("noise", self.epsilon, None, gradients=0),
        ]

    def record(self) -> dict[str, Any]:
        values = dataclasses.asdict(self) | {
            "epsilon": budget_text(self.epsilon),
            "radii": [budget_text(r) for r in self.radii],
        }
        rules = {
            "tolerance": TOLERANCE,
            "level": LEVEL,
            "zero": ZERO,
            "gradient_error": GRADIENT_ERROR,
        }
        return {
            **values,
            "norm": LINF,
            "loss": "ce",
            "unit": "range",
            "mirroring": False,
            "rules": rules,
        }


def _attack(
    name: str, epsilon: Fraction, steps: int | None, *, gradients: int | None = None
) -> EvaluationRun:
    gradients = steps if gradients is None else gradients
    forwards = 1 if gradients else steps or 1
    options = {} if steps is None else {"steps": steps}
    return EvaluationRun(
        kind="attack",
        name=name,
        function=name,
        norm=LINF,
        epsilon=epsilon,
        options=options,
        forwards=forwards,
        gradients=gradients,
    )


# --- measuring ----------------------------------------------------------------------------------------------------------------------


def measure_case(
    model: SegmentationModel,
    other: SegmentationModel,
    files: CaseFiles,
    protocol: Protocol,
    advance: Callable[[float], None] = lambda cost: None,
) -> dict[str, Any]:
    """All checks on one case: {"rows": [{"attack", "epsilon", "steps", "dice", "loss"}], "surface": ..., "adaptive": ...}. `other` makes
    the transferred perturbations; `advance` hears the cost of what was done, in predictions."""
    result = run_case(
        model, files, protocol.runs(), Options(seed=protocol.seed), surrogate=other, advance=advance
    )
    chosen = [
        r for r in result.rows if r["label"] == MEAN_LABEL and not r["attack"].startswith("worst")
    ]
    columns = {
        "attack": "attack",
        "epsilon": "epsilon_text",
        "steps": "steps",
        "dice": "dice",
        "loss": "attack_loss",
    }
    rows = [{name: r.get(column) for name, column in columns.items()} for r in chosen]
    case = model.preprocess(
        files.images, files.label, files.previous_stage, identifier=files.identifier
    )
    surface = loss_surface(model, case, protocol)
    advance(_surface_cost(protocol))
    return {
        "case": case.identifier,
        "rows": rows,
        "surface": surface,
        "adaptive": adaptive(model, case),
    }


def _surface_cost(protocol: Protocol) -> float:
    return protocol.grid**2 + 3.5 * (protocol.attack_steps + 4)


def loss_surface(model: SegmentationModel, case: Case, protocol: Protocol) -> dict[str, Any]:
    """CE on x + a PGD + b random, a in [0, 1] and b in [-1, 1], both of Linf size epsilon, clipped into [min, max]: "loss" [a][b]. And how well the
    gradient at x predicts a small step: "predicted" and "measured" change of the loss over 2 h along sign(gradient), h = epsilon / 32."""
    window, x, target = (
        model.sliding_window(),
        case.batch.to(model.device),
        case.target(model.label_space).to(model.device),
    )
    ball = ThreatModel(norm=LINF, epsilon=float(protocol.epsilon)).ball(case.bounds)
    seed = EvaluationRun(kind="attack", name="surface").seed(protocol.seed, case.identifier)
    generator = torch.Generator().manual_seed(seed)
    found = run_attack(
        "pgd_linf", window, x, target, ball, generator=generator, steps=protocol.attack_steps
    )
    random = project_onto_ball(x + ball.epsilon * random_direction(x, ball, generator), x, ball) - x

    def loss(at: torch.Tensor) -> float:
        return float(cross_entropy(window.logits(at), target))

    along, across = _grid(protocol)
    losses = [
        [loss(clip(x + a * (found.perturbed - x) + b * random, ball.bounds)) for b in across]
        for a in along
    ]
    gradient = window.value_and_gradient(x, lambda z: cross_entropy(z, target))[1]
    # not clipped: the question is about the function, and voxels at the border of the range must count
    step = ball.epsilon / 32 * step_direction(gradient, ball)
    return {
        "loss": losses,
        "predicted": 2 * float((gradient * step).sum()),
        "measured": loss(x + step) - loss(x - step),
    }


def _grid(protocol: Protocol) -> tuple[list[float], list[float]]:
    return np.linspace(0, 1, protocol.grid).tolist(), np.linspace(-1, 1, protocol.grid).tolist()


def adaptive(model: SegmentationModel, case: Case) -> dict[str, Any]:
    """Are the gains constants, and is the model deterministic? "difference": |gradient with the gains detached - full gradient| / |full|;
    "equal": whether logits and gradient come out bit-equal when evaluated again under another random state; "gains": reconstructions found."""
    window, x, target = (
        model.sliding_window(),
        case.batch.to(model.device),
        case.target(model.label_space).to(model.device),
    )

    def evaluate(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _, gradient, z = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
        return gradient, z

    full, z = evaluate(0)
    again, z_again = evaluate(1)
    with gains_detached(window.networks) as count:
        detached, _ = evaluate(0)
    norm = float(full.norm())
    difference = float((detached - full).norm())
    return {
        "gains": count,
        "difference": difference / norm if norm else None,
        "equal": bool(torch.equal(full, again) and torch.equal(z, z_again)),
    }


@contextmanager
def gains_detached(networks: Sequence[nn.Module]) -> Iterator[int]:
    """Within it, no gradient flows through the gains of any reconstruction; yields how many there are."""
    modules = [
        m
        for network in networks
        for m in network.modules()
        if isinstance(m, SelectiveWaveletReconstruction)
    ]
    with ExitStack() as stack:
        for module in modules:
            _detach_gains(module, stack)
        yield len(modules)


def _detach_gains(module: SelectiveWaveletReconstruction, stack: ExitStack) -> None:
    gains = module.gains
    own = "gains" in module.__dict__
    module.gains = lambda prior_gain=None: gains(
        None if prior_gain is None else prior_gain.detach()
    ).detach()
    # what stood on the instance comes back, else the method of the class shows again
    stack.callback(setattr, module, "gains", gains) if own else stack.callback(
        delattr, module, "gains"
    )


# --- judging ------------------------------------------------------------------------------------------------------------------------


def summarise(cases: Sequence[Mapping[str, Any]], protocol: Protocol) -> dict[str, Any]:
    """Means over the cases of `measure_case`, each Dice as {"dice", "low", "high"} with a 95% bootstrap interval over the cases."""
    draws = significance.resample(len(cases), seed=protocol.seed)

    def dice(
        attack: str, epsilon: Fraction | None = None, steps: int | None = None
    ) -> dict[str, float]:
        text = "" if epsilon is None else budget_text(epsilon)
        values = [_row(c, attack, text, steps)["dice"] for c in cases]
        low, high = significance.interval(np.array(values, float)[:, None], draws)
        return {"dice": mean(values), "low": low, "high": high}

    e, steps = protocol.epsilon, protocol.attack_steps
    sweep, text = sorted({*protocol.step_sweep, steps}), budget_text(e)
    surface = np.array([c["surface"]["loss"] for c in cases], float)
    return {
        "clean": dice("clean"),
        "white_box": dice("pgd_linf", e, steps),
        "transfer": dice("transfer", e, steps),
        "square": dice("square", e, protocol.queries),
        "noise": dice("noise", e),
        "steps": {
            str(n): {
                **dice("pgd_linf", e, n),
                "loss": mean([_row(c, "pgd_linf", text, n)["loss"] for c in cases]),
            }
            for n in sweep
        },
        "radii": {budget_text(r): dice("pgd_linf", r, steps) for r in sorted({*protocol.radii, e})},
        "surface": {"loss": surface.mean(0).tolist(), "gradient_error": _gradient_error(cases)},
        "adaptive": {
            "gains": cases[0]["adaptive"]["gains"],
            "difference": _largest([c["adaptive"]["difference"] for c in cases]),
            "equal": all(c["adaptive"]["equal"] for c in cases),
        },
    }


def _row(
    case: Mapping[str, Any], attack: str, epsilon: str, steps: int | None
) -> Mapping[str, Any]:
    return next(
        r
        for r in case["rows"]
        if (r["attack"], r["epsilon"]) == (attack, epsilon) and steps in (None, r["steps"])
    )


def _largest(values: Sequence[float | None]) -> float | None:
    return None if any(v is None for v in values) else max(values)


def _gradient_error(cases: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean over cases of |predicted - measured| / |predicted|; None where a gradient is 0."""
    pairs = [(c["surface"]["predicted"], c["surface"]["measured"]) for c in cases]
    return None if any(p == 0 for p, _ in pairs) else mean([abs(p - m) / abs(p) for p, m in pairs])


def judge(figures: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """{check: {"verdict", "why"}} by the rules at the top of this file, from `summarise`'s figures (or any of that form)."""
    white, clean = figures["white_box"]["dice"], figures["clean"]["dice"]
    verdicts = {
        "transfer": _not_below(white, {"transfer": figures["transfer"]["dice"]}),
        "black box": _not_below(white, {k: figures[k]["dice"] for k in ("square", "noise")}),
        "steps": _judge_steps({int(n): s["dice"] for n, s in figures["steps"].items()}, clean),
        "radius": _judge_radii({parse_budget(r): f["dice"] for r, f in figures["radii"].items()}),
        "surface": _judge_surface(
            np.array(figures["surface"]["loss"]), figures["surface"]["gradient_error"]
        ),
        "adaptive": _judge_adaptive(**figures["adaptive"]),
    }
    return {check: {"verdict": verdict, "why": why} for check, (verdict, why) in verdicts.items()}


def _not_below(white: float, others: Mapping[str, float]) -> tuple[str, str]:
    verdict = PASSES if all(white <= other + TOLERANCE for other in others.values()) else MASKED
    return verdict, f"white box {_percent(white)}, " + ", ".join(
        f"{k} {_percent(v)}" for k, v in others.items()
    )


def _judge_steps(dice: Mapping[int, float], clean: float) -> tuple[str, str]:
    curve = [dice[n] for n in sorted(dice)]
    why = f"clean {_percent(clean)}, then " + ", ".join(_percent(d) for d in curve)
    if curve[-1] > clean - TOLERANCE:
        return MASKED, f"{why}: the longest attack does nothing"
    if curve[-1] > curve[0] + TOLERANCE:
        return MASKED, f"{why}: iterating makes the attack weaker"
    if any(b > a + TOLERANCE for a, b in pairwise(curve)):
        return UNSETTLED, f"{why}: rises on the way"
    if len(curve) > 1 and curve[-2] - curve[-1] > LEVEL:
        return UNSETTLED, f"{why}: still falling"
    return PASSES, why


def _judge_radii(dice: Mapping[Fraction, float]) -> tuple[str, str]:
    curve = [dice[r] for r in sorted(dice)]
    why = ", ".join(f"{budget_text(r)}: {_percent(dice[r])}" for r in sorted(dice))
    if curve[-1] > ZERO:
        return MASKED, f"{why}: not 0 at the largest"
    rises = any(b > max(a + TOLERANCE, ZERO) for a, b in pairwise(curve))
    return (UNSETTLED, f"{why}: rises on the way") if rises else (PASSES, why)


def _judge_surface(loss: np.ndarray, error: float | None) -> tuple[str, str]:
    middle = loss.shape[1] // 2
    along, across = loss[:, middle], loss[0]
    why = f"loss {along[0]:.3f}, PGD {along[-1]:.3f}, random {max(across[0], across[-1]):.3f}"
    if error is None:
        return MASKED, f"{why}; a gradient is 0"
    why += f"; gradient's error {_percent(error)}"
    if error > GRADIENT_ERROR:
        return MASKED, f"{why}: the gradient does not predict the loss"
    if along[-1] <= across.max():
        return MASKED, f"{why}: the gradient's direction is no worse than chance"
    return (UNSETTLED, f"{why}; falls on the way") if (np.diff(along) < 0).any() else (PASSES, why)


def _judge_adaptive(*, gains: int, difference: float | None, equal: bool) -> tuple[str, str]:
    shown = "no gradient" if difference is None else f"difference {difference:.2g}"
    why = f"{gains} reconstructions, {shown}; evaluated again: {'bit-equal' if equal else 'different'}"
    if not equal:
        return MASKED, why
    return (PASSES if difference in (0, None) else UNSETTLED), why


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


# --- showing ------------------------------------------------------------------------------------------------------------------------


def tables(
    figures: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], protocol: Protocol
) -> str:
    """Markdown: foreground Dice in percent with its interval, then the verdicts."""

    def cell(f: Mapping[str, float]) -> str:
        return f"{_percent(f['dice'])} [{_percent(f['low'])}, {_percent(f['high'])}]"

    e, n = budget_text(protocol.epsilon), protocol.attack_steps
    lines = [
        ("clean", "clean", None),
        (f"PGD-{n} {e}, white box", "white_box", None),
        (f"PGD-{n} {e}, made on the other model", "transfer", None),
        (f"square {e}, {protocol.queries} queries", "square", None),
        (f"random signs {e}", "noise", None),
        *((f"PGD-{k} {e}", "steps", k) for k in next(iter(figures.values()))["steps"]),
        *((f"PGD-{n} {r}", "radii", r) for r in next(iter(figures.values()))["radii"]),
    ]
    body = [
        [name, *(cell(f[key] if sub is None else f[key][sub]) for f in figures.values())]
        for name, key, sub in lines
    ]
    dice = markdown_table(["foreground Dice, % [95%]", *(titles[k] for k in figures)], body)
    verdicts = {name: judge(f) for name, f in figures.items()}
    checks = next(iter(verdicts.values()))
    body = [
        [check, *(f"{v[check]['verdict']} ({v[check]['why']})" for v in verdicts.values())]
        for check in checks
    ]
    return f"{dice}\n\n{markdown_table(['check', *(titles[k] for k in figures)], body)}"


def draw(
    path: Path,
    figures: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    protocol: Protocol,
) -> None:
    """Dice over steps, Dice over the radius, and the loss surface of each model."""
    figure = Figure(figsize=(4.0 * (2 + len(figures)), 3.8), layout="constrained")
    axes = figure.subplots(1, 2 + len(figures))
    for (name, f), colour in zip(figures.items(), COLOURS):
        for axis, curve in zip(axes, (f["steps"], f["radii"])):
            axis.plot(
                range(len(curve)),
                [100 * p["dice"] for p in curve.values()],
                marker="o",
                color=colour,
                label=titles[name],
            )
            axis.fill_between(
                range(len(curve)),
                *([100 * p[k] for p in curve.values()] for k in ("low", "high")),
                color=colour,
                alpha=0.12,
            )
            axis.set_xticks(range(len(curve)), list(curve), fontsize=8)
        axes[0].axhline(100 * f["clean"]["dice"], color=colour, linestyle=":", linewidth=1)
    axes[0].set(
        xlabel=f"steps of PGD at {budget_text(protocol.epsilon)}; dotted: clean",
        ylabel="foreground Dice (%)",
        title="Step sweep",
    )
    axes[1].set(xlabel=f"epsilon, PGD-{protocol.attack_steps}", title="Radius sweep")
    for axis in axes[:2]:
        axis.set_ylim(-2, 102)
        axis.grid(axis="y", color="#E5E5E5")
    axes[0].legend(fontsize=8, frameon=False)
    surfaces = {name: np.array(f["surface"]["loss"]) for name, f in figures.items()}
    limits = {
        "vmin": min(s.min() for s in surfaces.values()),
        "vmax": max(s.max() for s in surfaces.values()),
    }
    along, across = _grid(protocol)
    for axis, (name, surface) in zip(axes[2:], surfaces.items()):
        shown = axis.pcolormesh(across, along, surface, cmap="viridis", shading="nearest", **limits)
        for (i, j), value in np.ndenumerate(surface):
            dark = value < (limits["vmin"] + limits["vmax"]) / 2
            axis.text(
                across[j],
                along[i],
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
        axis.set(
            xlabel="random direction, in epsilon",
            ylabel="PGD direction, in epsilon",
            title=f"Loss, {titles[name]}",
        )
    figure.colorbar(shown, ax=list(axes[2:]), label="mean CE")
    write_picture(path, figure)


# --- the command --------------------------------------------------------------------------------------------------------------------


def measure(
    pair: Pair, protocol: Protocol, *, progress: bool = True, kept: Path | None = None
) -> dict[str, list[dict[str, Any]]]:
    """{"model" | "reference": one `measure_case` per case}; each is the other's surrogate. `kept`: a file that holds finished cases, from which a
    killed call goes on. ValueError if it is of other settings."""
    settings = {
        "protocol": protocol.record(),
        "checkpoints": {
            name: model.describe()["checkpoint_sha256"] for name, model in pair.models.items()
        },
        "cases": [files.identifier for files in pair.cases],
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pair.models}
    if kept is not None and kept.is_file():
        content = read_json(kept, needs=("settings", "found"))
        if content["settings"] != json.loads(json.dumps(settings)):
            raise ValueError(f"{kept} holds cases of other settings; remove it, or give another -o")
        found = content["found"]
    cost = sum(r.cost for r in protocol.runs()) + _surface_cost(protocol)
    total = cost * len(pair.cases) * len(pair.models)
    with tqdm(
        total=round(total),
        initial=round(cost * sum(map(len, found.values()))),
        unit="prediction",
        disable=not progress,
    ) as bar:
        for i, files in enumerate(pair.cases):
            for name, model in pair.models.items():
                if len(found[name]) > i:
                    continue
                bar.set_postfix_str(f"{files.identifier}, {name}")
                found[name].append(
                    measure_case(
                        model,
                        pair.other(name),
                        files,
                        protocol,
                        advance=lambda done: bar.update(done),
                    )
                )
                if kept is not None:
                    write_file(kept, json.dumps({"settings": settings, "found": found}))
    return found


def main(argv: list[str] | None = None) -> None:
    default = Protocol()
    command = parser(__doc__.split("\n")[0])
    add = command.add_argument
    add(
        "--epsilon",
        default=budget_text(default.epsilon),
        help="budget of all checks but the radius; default: %(default)s of the range",
    )
    add(
        "--steps",
        type=int,
        default=default.attack_steps,
        help="of PGD where they are not swept; default: %(default)s",
    )
    add("--step-sweep", type=int, nargs="+", default=default.step_sweep, metavar="N")
    add(
        "--radii",
        nargs="+",
        default=[budget_text(r) for r in default.radii],
        metavar="E",
        help="beside --epsilon; default: %(default)s",
    )
    add(
        "--queries",
        type=int,
        default=default.queries,
        help="of the square attack; default: %(default)s",
    )
    add(
        "--grid",
        type=int,
        default=default.grid,
        help="points per axis of the loss surface; default: %(default)s",
    )
    args = command.parse_args(argv)
    try:
        result, figures, titles, protocol = _run(args, argv)
    except ValueError as error:
        command.error(str(error))
    print(tables(figures, titles, protocol))
    if args.o:
        write_json(args.o, result)
        _kept(args.o).unlink(missing_ok=True)
    if args.picture:
        draw(args.picture, figures, titles, protocol)


def _kept(out: Path | None) -> Path | None:
    return None if out is None else out.with_name(f"{out.name}.partial")


def _run(args: argparse.Namespace, argv: list[str] | None):
    command = " ".join(
        ["python", "benchmarks/masked_gradients.py", *(sys.argv[1:] if argv is None else argv)]
    )
    torch.set_num_threads(args.threads)
    protocol = Protocol(
        epsilon=parse_budget(args.epsilon),
        attack_steps=args.steps,
        step_sweep=tuple(args.step_sweep),
        radii=tuple(parse_budget(r) for r in args.radii),
        queries=args.queries,
        grid=args.grid,
        seed=args.seed,
    )
    pair = load(args)
    cases = measure(pair, protocol, progress=not args.disable_progress_bar, kept=_kept(args.o))
    figures = {name: summarise(found, protocol) for name, found in cases.items()}
    result = {
        **conditions(command, args.device, args.threads),
        "protocol": protocol.record(),
        "models": {
            name: {k: v for k, v in model.describe().items() if k != "folder"}
            for name, model in pair.models.items()
        },
        "figures": figures,
        "verdicts": {name: judge(f) for name, f in figures.items()},
        "cases": cases,
    }
    return result, figures, pair.titles, protocol


if __name__ == "__main__":
    main()
