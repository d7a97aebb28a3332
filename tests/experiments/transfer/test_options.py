"""What the options of the transfer benchmark ask `lngswr evaluate` for."""

from evaluation.command_line import parse
from nnunetv2_lngswr.attacks.suites import full_name
from nnunetv2_lngswr.experiments.transfer.options import Options


def test_the_suite_is_asked_for_with_its_version():
    words = Options(attacks=("worst", "fgsm"), epsilons=("8/255",)).evaluation
    read = parse(["-m", "MODEL", "-o", "OUT", *words])
    # tables stay what they are when a newer suite comes to be the default
    assert read["attacks"] == [full_name("worst"), "fgsm"] != ["worst", "fgsm"]
    assert read["epsilons"] == ["8/255"] and read["use_mirroring"] is False
