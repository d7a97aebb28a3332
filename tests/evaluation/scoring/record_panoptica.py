"""Records what panoptica says of random masks, into panoptica.json beside this file.

    python -m venv PANO && PANO/bin/pip install panoptica==2.1.7
    PANO/bin/python tests/evaluation/scoring/record_panoptica.py

In an environment of its own, since panoptica's pins would downgrade NumPy here.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import ndimage

RECORDED = Path(__file__).with_name("panoptica.json")
SEEDS, THRESHOLDS = range(12), (0.1, 0.5)


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(prediction, ground truth): some components that match well, some badly, some not at all."""
    rng = np.random.default_rng(seed)
    noise, other = rng.standard_normal((2, 16, 18, 20))
    ground_truth = ndimage.gaussian_filter(noise, 1.3) > 0.1
    near = ndimage.gaussian_filter(ground_truth.astype(float), 0.7) - 0.3
    prediction = ndimage.gaussian_filter(other, 1.3) + rng.uniform(0.2, 1.2) * near > 0.12
    return prediction, ground_truth


def main() -> None:
    from panoptica import (  # pyright: ignore[reportMissingImports]  # not installed here
        ConnectedComponentsInstanceApproximator,
        InputType,
        MaxBipartiteMatching,
        Metric,
        Panoptica_Evaluator,
    )

    found = []
    for seed in SEEDS:
        prediction, ground_truth = (m.astype(np.uint8) for m in masks(seed))
        for iou in THRESHOLDS:
            evaluator = Panoptica_Evaluator(
                expected_input=InputType.SEMANTIC,
                instance_approximator=ConnectedComponentsInstanceApproximator(),
                instance_matcher=MaxBipartiteMatching(Metric.IOU, iou),
                decision_metric=Metric.IOU,
                decision_threshold=iou,
            )
            result = evaluator.evaluate(prediction, ground_truth)["ungrouped"]
            found.append(
                {
                    "seed": seed,
                    "iou": iou,
                    "reference": int(result.n_ref_instances),
                    "predicted": int(result.n_pred_instances),
                    "matched": int(result.tp),
                    "f1": float(result.rq),
                }
            )
    content = {"panoptica": version("panoptica"), "results": found}
    RECORDED.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
