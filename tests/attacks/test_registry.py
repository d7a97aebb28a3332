import inspect
import subprocess
import sys

import pytest
import torch

from nnunetv2_lngswr import attacks
from nnunetv2_lngswr.attacks import BatchModel, Bounds, ThreatModel, losses, run_attack
from nnunetv2_lngswr.attacks.terms import LOSS_NAMES
from tests.attacks.problems import SPACE


def test_unknown_attacks_and_misuse_are_named(trained):
    network, x, y = trained[2]
    with pytest.raises(ValueError, match="unknown attack 'pgd_lin'; did you mean pgd_linf"):
        attacks.get_attack("pgd_lin")
    arguments = (BatchModel(network), x, SPACE.target(y))
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(Bounds.of(x))
    generator = torch.Generator()
    with pytest.raises(ValueError, match="works in l2, got linf"):
        run_attack("pgd_l2", *arguments, ball, generator=generator)
    with pytest.raises(ValueError, match="surrogate"):
        run_attack("transfer", *arguments, ball, generator=generator)
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        run_attack("pgd_linf", *arguments, ball, generator=generator, steps=0)
    with pytest.raises(ValueError, match="step_size must be > 0"):
        run_attack("pgd_linf", *arguments, ball, generator=generator, step_size=0.0)
    with pytest.raises(ValueError, match="fixes loss"):
        run_attack("apgd_js", *arguments, ball, generator=generator, loss="ce")
    spoiled = x.clone()
    spoiled[-1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite values; the image has NaN"):
        run_attack("pgd_linf", arguments[0], spoiled, arguments[2], ball, generator=generator)


def test_names_are_validated_without_torch():
    program = """
import sys
from nnunetv2_lngswr.attacks import get_attack
try:
    get_attack("pgd_lin")
except ValueError as error:
    print(error)
print(get_attack("segpgd").summary, get_attack("torchattacks:PGD").options)
assert not {"torch", "numpy"} & set(sys.modules), "imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "unknown attack 'pgd_lin'; did you mean pgd_linf" in done.stdout


@pytest.mark.parametrize("name", [*attacks.ATTACKS, "torchattacks:PGD"])
def test_every_name_leads_to_a_function_that_takes_its_options(name):
    spec = attacks.get_attack(name)
    parameters = inspect.signature(spec.function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert takes_any or {*spec.options, *spec.tunable} <= set(parameters)
    assert parameters["generator"].kind is inspect.Parameter.KEYWORD_ONLY


def test_names_of_losses_are_those_of_the_functions():
    assert tuple(losses.LOSSES) == LOSS_NAMES


def test_public_names_can_be_imported():
    for name in attacks.__all__:
        assert getattr(attacks, name) is not None
    unknown = "base"
    with pytest.raises(AttributeError, match="has no attribute 'base'"):
        getattr(attacks, unknown)
