import pytest

from nnunetv2_lngswr.attacks import Bounds, ThreatModel
from tests.attacks.problems import two_channel_case


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "linf", "epsilon": -0.1}, "epsilon must be finite and >= 0, got -0.1"),
        ({"norm": "linf", "epsilon": float("nan")}, "got nan"),
        ({"norm": "l1", "epsilon": 0.1}, "norm must be one of linf, l2, got 'l1'"),
        (
            {"norm": "l2", "epsilon": 0.1, "unit": "hu"},
            "epsilon unit must be one of range, normalized, original, got 'hu'",
        ),
    ],
)
def test_bad_threat_models_are_named(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        ThreatModel(**arguments)


def test_original_unit_needs_an_affine_normalisation():
    with pytest.raises(ValueError, match="affine"):
        ThreatModel(norm="linf", epsilon=1, unit="original").ball(Bounds.of(two_channel_case()))
