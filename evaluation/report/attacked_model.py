"""Which model a report is of, in words: nnU-Net's folder, or a network that was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.model.kinds import is_given

WHITE_BOX = (
    "White box: the attacker knows model and ground truth, and attacks use the exact gradient of "
    "that function."
)
ATTACKED = (
    "The function that nnU-Net deploys: preprocessed case, sliding window with Gaussian weights, "
    f"mirroring where on, mean over folds, to the logits of the whole case. {WHITE_BOX} "
    "Segmentations, clean and attacked, come from nnU-Net's own predictor and are scored in the "
    "original space."
)
ATTACKED_NETWORK = (
    "The function that was given: the case through the network, by its own inference, to the "
    f"logits of the whole case. {WHITE_BOX} Segmentations, clean and attacked, are what those "
    "logits say, and are scored on the grid of the arrays that were given."
)


def model_title(model: Mapping[str, Any], *keys: str) -> str:
    """'nnUNetTrainer, nnUNetPlans, 2d on Dataset611_ThyroidUS': what of it is known."""
    title = ", ".join(str(model[key]) for key in keys if model[key])
    return f"{title} on {model['dataset']}" if model["dataset"] else title


def attacked_model(summary: Mapping[str, Any]) -> list[str]:
    """Lines of report.md: the function, the model and how it was deployed."""
    model = summary["model"]
    protocol, device = f"- protocol: {summary['protocol']}", f"device {model['device']}"
    if is_given(model):
        hashes = ", ".join(model["checkpoint_sha256"].values()) or "unknown, a callable was given"
        return [
            ATTACKED_NETWORK,
            "",
            f"- model: {model['trainer']}, SHA-256 of its weights: {hashes}",
            protocol,
            f"- inference: {model['inference']}, {device}",
        ]
    hashes = "; ".join(f"fold {f}: {h}" for f, h in model["checkpoint_sha256"].items())
    return [
        ATTACKED,
        "",
        f"- model: {model['folder']}, {model['checkpoint']}, SHA-256 {hashes}",
        protocol,
        f"- tile step {model['tile_step_size']:g}, mirroring {mirroring_said(model)}, "
        f"patch {model['patch_size']}, {device}",
    ]


def mirroring_said(model: Mapping[str, Any]) -> str:
    """'off', or which axes."""
    axes = model["mirror_axes"]
    return "off" if axes is None else f"axes {', '.join(map(str, axes))}"
