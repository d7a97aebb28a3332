"""Plans as the experiments change them, by what nnU-Net makes of them."""

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.experiments.plans import drop_next_stage, resolved
from nnunetv2_lngswr.utils.errors import UserError


def configurations():
    return {
        "3d_lowres": {"architecture": {}, "batch_size": 2, "next_stage": "3d_cascade_fullres"},
        "large": {"inherits_from": "3d_lowres", "batch_size": 4},
        "larger": {"inherits_from": "large", "spacing": [1, 1, 1]},
        "2d": {"architecture": {}},
    }


@pytest.mark.parametrize("name", configurations())
def test_it_is_resolved_as_nnunet_does(name):
    manager = PlansManager({"configurations": configurations()})
    assert resolved(configurations(), name) == manager.get_configuration(name).configuration


@pytest.mark.parametrize("name", configurations())
def test_nothing_is_handed_on(name):
    changed = configurations()
    drop_next_stage(changed, name)
    manager = PlansManager({"configurations": changed})
    assert manager.get_configuration(name).next_stage_names is None
    others = {key: value for key, value in configurations().items() if key != name}
    assert others == {key: value for key, value in changed.items() if key != name}
    if name == "2d":
        assert changed == configurations()


@pytest.mark.parametrize("parent", ["a", "b", "missing"])
def test_what_inherits_from_nothing_is_refused(parent):
    with pytest.raises(UserError, match=f'configuration a must inherit .* "{parent}"'):
        resolved({"a": {"inherits_from": parent}, "b": {"inherits_from": "b"}}, "a")
