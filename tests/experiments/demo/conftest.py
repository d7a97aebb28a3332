import json

import pytest

from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.installation import register
from tests.experiments.demo.planned import planned


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(register, "trainers_are_found", lambda: True)


@pytest.fixture
def commands(monkeypatch, registered):
    """Runs the chain without nnU-Net: records each command, and leaves what the next step reads."""
    ran = []

    def command(chain, name, command, show=""):
        ran.append([str(part) for part in command])
        places = chain.places
        if name == "preprocess":
            places.preprocessed.mkdir(parents=True)
            (places.preprocessed / "nnUNetPlans.json").write_text(json.dumps(planned(chain.kind)))
        if name == "evaluate":
            ending = places.file_ending
            places.predictions.mkdir(parents=True)
            metrics = []
            for label in sorted((places.raw / "labelsTs").iterdir()):
                (places.predictions / label.name).write_bytes(label.read_bytes())
                metrics.append(
                    {
                        "prediction_file": str(places.predictions / label.name),
                        "metrics": {"1": {"Dice": 0.5}},
                    }
                )
            assert all(m["prediction_file"].endswith(ending) for m in metrics)
            (places.predictions / "summary.json").write_text(
                json.dumps({"metric_per_case": metrics, "foreground_mean": {"Dice": 0.5}})
            )

    monkeypatch.setattr(Chain, "_command", command)
    return ran
