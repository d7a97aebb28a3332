"""Rows of cases.csv and summaries of them, made by hand."""

from evaluation import metrics
from evaluation.report import cases_table, checks, records
from evaluation.rows import MEAN_LABEL, with_worst

TEXT = (
    "case",
    "fold",
    "kind",
    "attack",
    "norm",
    "epsilon_text",
    "epsilon_unit",
    "label",
    "label_name",
)


def row(case, kind, attack, dice, *, norm="", epsilon=None, severity=None, label="1", **more):
    text = "" if epsilon is None else f"{epsilon * 255:g}/255"
    values = dict.fromkeys(cases_table.COLUMNS, None)
    values |= dict.fromkeys(TEXT, "") | dict.fromkeys(metrics.METRICS, dice)
    values |= {
        "case": case,
        "kind": kind,
        "attack": attack,
        "norm": norm,
        "epsilon": epsilon,
        "epsilon_text": text,
        "severity": severity,
        "label": label,
    }
    return (
        values
        | {
            "label_name": f"name {label}",
            "dice_drop": 0.0,
            "reference_voxels": 3,
            "predicted_voxels": 2,
            "source": "",
        }
        | more
    )


def rows_of(case, shift=0.0):
    """Clean, two attacks at two budgets in two labels, a shift in two severities."""
    runs = [("clean", "clean", "", None, None, 0.9)]
    for i, e in enumerate((1 / 255, 2 / 255)):
        runs += [
            ("attack", "noise", "linf", e, None, 0.85 - 0.05 * i),
            ("attack", "pgd_linf", "linf", e, None, 0.6 - 0.3 * i),
        ]
        runs += [("attack", "pgd_l2", "l2", e, None, 0.7 - 0.2 * i)]
    runs += [("attack", "ssah", "", None, None, 0.2)]
    runs += [("shift", "gamma", "", None, s, 0.9 - 0.1 * s) for s in (1, 2)]
    made = []
    for kind, attack, norm, e, s, dice in runs:
        sizes = dict.fromkeys(cases_table.SIZES, 0.01) if kind == "attack" else {}
        for label, offset in (("1", 0.05), ("2", -0.05), (MEAN_LABEL, 0.0)):
            made.append(
                row(
                    case,
                    kind,
                    attack,
                    dice + offset + shift,
                    norm=norm,
                    epsilon=e,
                    severity=s,
                    label=label,
                    **sizes,
                )
            )
    return with_worst(made)


def all_rows():
    return [r for i, c in enumerate(("a", "b", "c")) for r in rows_of(c, 0.03 * i)]


def summary_of(rows):
    results = records.summarise(rows, seed=0)
    model = {
        "trainer": "T",
        "plans": "P",
        "configuration": "2d",
        "dataset": "D",
        "mirror_axes": None,
        "folder": "F",
        "checkpoint": "c.pth",
    }
    model |= {
        "tile_step_size": 0.5,
        "patch_size": [8, 8],
        "device": "cpu",
        "folds": [0],
        "checkpoint_sha256": {"0": "abc"},
    }
    return {
        "schema_version": 1,
        "model": model,
        "protocol": "3 cases",
        "cases": list(dict.fromkeys(r["case"] for r in rows)),
        "options": {"epsilon_unit": "range", "steps": None, "restarts": None, "seed": 0},
        "metrics": {"surface_unit": "mm", "nsd_tolerance": 2.0},
        "attacks": records.attack_settings(rows),
        "results": results,
        "checks": checks.checks(results),
        "shifts_left_out": {"jpeg": "needs a 2D configuration"},
        "shift_strengths": {"gamma": {"strengths": [1.2, 1.5], "unit": "gamma | inverse"}},
        "notes": [],
        "cost": [{"run": "clean", "seconds": 0.5, "forwards": 0.0, "gradients": 0.0}],
        "environment": {"python": "3"},
    }
