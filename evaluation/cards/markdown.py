"""A card as Markdown, with Hugging Face's model-index as its front matter.

The card is README.md of a model repository there as it is. Names come from files: they stand in
code spans, sentences are escaped, and the front matter is written by PyYAML.
"""

from __future__ import annotations

from typing import Any

import yaml

from evaluation.cards.reading import (
    Card,
    Entry,
    best_known_of,
    brackets,
    calibration_of,
    claimed_of,
    interval,
)
from evaluation.report import calibration
from evaluation.report.attacked_model import mirroring_said
from evaluation.report.formats import number_text, percent_text
from evaluation.report.markdown import UNITS
from evaluation.report.norms import NORM_TITLES
from evaluation.report.records import of_middle_budget
from nnunetv2_lngswr.utils.markdown import code, escaped, markdown_table

_TAGS = ["nnunet", "medical-imaging", "image-segmentation", "robustness"]
READ = (
    "*Claimed*: by the first evaluation that attacked, under its standard suite, or without one "
    "under the worst of its attacks. *Best known*: case by case the lowest of all attacks of all "
    "evaluations of this checkpoint. Both are upper bounds: a stronger attack may leave less. "
    "*noise*: the control."
)


def card_markdown(card: Card) -> str:
    """The whole text, front matter first.

    Parameters
    ----------
    card
        As its schema has it.
    """
    sections = [
        f"---\n{front_matter(card)}---",
        f"# Robustness card: {code(card['name'])}",
        _headline(card),
        _worst(card),
        _checks(card),
        _corruptions(card),
        _calibration(card),
        _labels(card),
        _attacked(card),
        *(_evaluation(card, index) for index in range(len(card["evaluations"]))),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def front_matter(card: Card) -> str:
    """YAML: tags and the model-index, Dice and ECE in percent."""
    dataset = card["model"]["dataset"]
    result = {
        "task": {"type": "image-segmentation", "name": "Medical image segmentation"},
        "dataset": {"type": dataset, "name": dataset},
        "metrics": _metrics(card),
    }
    content = {
        "library_name": "nnunetv2",
        "pipeline_tag": "image-segmentation",
        "tags": _TAGS,
        "model-index": [{"name": card["name"], "results": [result]}],
    }
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.2, which Hugging Face reads, takes for numbers, and 1.1 does not."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if text[:1] in "0123456789+-." else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _metrics(card: Card) -> list[dict[str, Any]]:
    metrics = [_metric("Dice, clean (%)", card["clean"])]
    for entry in card["worst"]:
        budget, at = _budget(card, entry), _at(entry)
        if entry["claimed"] is not None:
            attack = {"attack": entry["claimed"]["attack"]}
            name = f"Dice, claimed under {attack['attack']}, {at} (%)"
            metrics.append(_metric(name, claimed_of(entry), attack | budget))
        metrics.append(_metric(f"Dice, best known, {at} (%)", best_known_of(entry), budget))
    if card["corruptions"] is not None:
        name = "Dice, mean over corruptions and severities (%)"
        metrics.append(_metric(name, card["corruptions"]["mean"]))
    metrics += _calibration_metrics(card)
    return [m for m in metrics if m["value"] is not None]


def _calibration_metrics(card: Card) -> list[dict[str, Any]]:
    """ECE, clean and at the budget of the headline, as far as it was measured."""
    found = [_metric("ECE, clean (%)", calibration_of(card), of="ece")]
    entry = of_middle_budget(card["worst"])
    if entry is not None:
        figures = calibration_of(card, (entry["norm"], entry["epsilon_text"]))
        name = f"ECE, best known, {_at(entry)} (%)"
        found.append(_metric(name, figures, _budget(card, entry), of="ece"))
    return found


def _metric(
    name: str, figures: Any, args: dict[str, Any] | None = None, *, of: str = "dice"
) -> dict[str, Any]:
    share = None if figures is None else figures[of]
    value = None if share is None else round(100 * share, 2)
    return {"type": of, "name": name, "value": value, **({"args": args} if args else {})}


def _budget(card: Card, entry: Entry) -> dict[str, Any]:
    unit = card["threat_model"]["epsilon_unit"]
    return {"norm": entry["norm"], "epsilon": entry["epsilon_text"], "epsilon_unit": unit}


def _at(entry: Entry) -> str:
    return f"{NORM_TITLES[entry['norm']]} {entry['epsilon_text']}"


def _headline(card: Card) -> str:
    entry = of_middle_budget(card["worst"])
    said = (
        f"{card['data']['cases']} cases of {code(card['model']['dataset'])}. Clean foreground Dice "
        f"**{interval(card['clean'])}**."
    )
    if entry is None:
        return f"{said} It was not attacked."
    at = f"{NORM_TITLES[entry['norm']]} {escaped(entry['epsilon_text'])} {_in_unit(card)}"
    claimed = entry["claimed"]
    if claimed is not None:
        figures = interval(claimed["figures"])
        said += f" Claimed under {code(claimed['attack'])}, {at}: **{figures}**."
    else:
        said += f" At {at} nothing is claimed."
    count = len(card["evaluations"])
    known = f"Best known from {count} evaluation{'s' if count > 1 else ''}"
    return f"{said} {known}: **{interval(best_known_of(entry))}**.\n\n{brackets([card])}"


def _worst(card: Card) -> str:
    if not card["worst"]:
        return ""
    columns = ["norm", "epsilon", "noise", "claimed", "best known", "drop", "found by"]
    body = [
        [
            NORM_TITLES[entry["norm"]],
            escaped(entry["epsilon_text"]),
            interval(entry["noise"]),
            interval(claimed_of(entry)),
            f"**{interval(best_known_of(entry))}**",
            interval(best_known_of(entry), "drop"),
            _found_by(card, entry),
        ]
        for entry in card["worst"]
    ]
    return "\n\n".join(["## Under attack", markdown_table(columns, body), READ])


def _found_by(card: Card, entry: Entry) -> str:
    several = len(card["evaluations"]) > 1
    said = []
    for found in entry["best_known"]["found_by"]:
        where = f" of evaluation {found['evaluation'] + 1}" if several else ""
        said.append(f"{code(found['attack'])}{where} in {found['cases']} cases")
    return ", ".join(said)


def _checks(card: Card) -> str:
    lines = []
    for number, evaluation in enumerate(card["evaluations"], 1):
        where = f"Evaluation {number}: " if len(card["evaluations"]) > 1 else ""
        lines += [f"{where}{line}" for line in evaluation["checks"]]
    tried = [f"- Not tried: {escaped('; '.join(card['not_tried']))}."] if card["not_tried"] else []
    return "\n".join([*(f"- {escaped(line)}" for line in lines), *tried])


def _corruptions(card: Card) -> str:
    found = card["corruptions"]
    if found is None:
        return ""
    body = []
    for corruption in found["each"]:
        strengths = ", ".join(f"{s:g}" for s in corruption["strengths"])
        dice = ", ".join(percent_text(d) for d in corruption["dice"])
        known = f"{strengths} ({escaped(corruption['unit'])})" if strengths else ""
        body.append([code(corruption["name"]), known, dice, interval(corruption["mean"])])
    body.append(["**mean**", "", "", f"**{interval(found['mean'])}**"])
    columns = ["corruption", "strength of severities", "Dice", "mean"]
    return f"## Under corruptions\n\n{markdown_table(columns, body)}"


def _calibration(card: Card) -> str:
    found = card["calibration"]
    if not found:
        return ""
    rows = [("clean", found["clean"])]
    for entry in found["worst"]:
        at = f"best known, {NORM_TITLES[entry['norm']]} {escaped(entry['epsilon_text'])}"
        rows.append((at, entry))
    if found["corruptions"] is not None:
        rows.append(("mean over corruptions", found["corruptions"]))
    body = [[title, *calibration.cells([figures])] for title, figures in rows]
    table = markdown_table(["", *calibration.columns()], body)
    return f"## Calibration\n\n{table}\n\n{calibration.READ}"


def _labels(card: Card) -> str:
    labels = card["clean"]["labels"]
    if len(labels) < 2:
        return ""
    rows = [("clean", card["clean"])]
    for entry in card["worst"]:
        at = f"best known, {NORM_TITLES[entry['norm']]} {escaped(entry['epsilon_text'])}"
        rows.append((at, entry["best_known"]["figures"]))
    columns = ["", *(f"{code(label['name'])} ({code(key)})" for key, label in labels.items())]
    body = [
        [title, *(interval(figures["labels"].get(key)) for key in labels)]
        for title, figures in rows
    ]
    return f"## Dice per label\n\n{markdown_table(columns, body)}"


def _attacked(card: Card) -> str:
    model, data, threat = card["model"], card["data"], card["threat_model"]
    lines = [
        f"- model: {code(model['trainer'])}, {code(model['plans'])}, "
        f"{code(model['configuration'])}, {code(model['checkpoint'])}",
        *(f"- fold {escaped(f)}: SHA-256 `{h}`" for f, h in model["checkpoint_sha256"].items()),
        f"- tile step {model['tile_step_size']:g}, mirroring {mirroring_said(model)}, "
        f"patch {' x '.join(map(str, model['patch_size']))}",
        f"- data: {escaped(data['protocol'])}",
        f"- SHA-256 of names and sizes of the cases: `{data['cases_sha256']}`",
        f"- SHA-256 of images and labels: `{data['files_sha256'] or 'not known'}`",
        f"- epsilon {_in_unit(card)}; HD95 and NSD in {escaped(card['metrics']['surface_unit'])}",
        *(f"- {k.replace('_', ' ')}: {escaped(v)}" for k, v in threat.items() if _is_said(k)),
    ]
    return "## What was attacked\n\n" + "\n".join(lines)


def _evaluation(card: Card, index: int) -> str:
    found = card["evaluations"][index]
    number = f" {index + 1}" if len(card["evaluations"]) > 1 else ""
    columns = ["attack", "norm", "steps", "step size / epsilon", "restarts", "loss", "other"]
    body = []
    for a in found["attacks"]:
        numbers = [number_text(a[k]) for k in ("steps", "step_over_epsilon", "restarts")]
        other = [escaped(a["loss"] or ""), escaped(a["other"])]
        body.append([code(a["attack"]), escaped(a["norm"]), *numbers, *other])
    suite = found["suite"]
    lines = [f"- suite: {code(suite['name']) if suite else 'none'}"]
    for member in suite["members"] if suite else ():
        settings = ", ".join(f"{k} {v}" for k, v in member["settings"].items())
        lines.append(
            f"- member {code(member['name'])}: {code(member['attack'])}, {escaped(settings)}"
        )
    lines += [f"- seed {found['seed']}", *(f"- {escaped(note)}" for note in found["notes"])]
    for environment in found["environments"]:
        lines.append("- " + escaped(", ".join(f"{k} {v}" for k, v in environment.items())))
    lines.append(f"- SHA-256 of its summary.json: `{found['summary_sha256']}`")
    table = f"{markdown_table(columns, body)}\n\n" if body else ""
    return f"## Evaluation{number}\n\n{table}" + "\n".join(lines)


def _in_unit(card: Card) -> str:
    unit = card["threat_model"]["epsilon_unit"]
    return f"{'of' if unit == 'range' else 'in'} {UNITS[unit]}"


def _is_said(key: str) -> bool:
    """The unit is said in words of its own; other keys may be anything in a card of others."""
    return key in ("knowledge", "linf", "l2", "bounds")
