"""Weights averaged over the last phase: what the average is, and who sees it when."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.method.reconstruction import SCALE
from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWRAT
from nnunetv2_lngswr.training.weight_average import add_to_average, exchange
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests.training.tiny_training import FULL, started, weights

LATE = {"start": 0.5, **FULL}


def optimizer_of(value: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.tensor([value, -value]))], lr=1.0)


@pytest.mark.parametrize(
    "momentum, expected",
    [
        (1.0, (1 + 2 + 4 + 8) / 4),
        (0.0, 8.0),
        # the mean of two, then a quarter of the newest
        (0.75, ((1.5 * 2 / 3 + 4 / 3) * 0.75) + 8 * 0.25),
    ],
)
def test_the_average_keeps_its_share_but_no_more_than_the_mean_would(momentum, expected):
    optimizer = optimizer_of(1.0)
    (parameter,) = optimizer.param_groups[0]["params"]
    for step, value in enumerate((1.0, 2.0, 4.0, 8.0)):
        parameter.data = torch.tensor([value, -value])
        add_to_average(optimizer, step=step, momentum=momentum)
    exchange(optimizer)
    assert parameter.tolist() == pytest.approx([expected, -expected])
    exchange(optimizer)
    assert parameter.tolist() == [8, -8]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_it_travels_with_the_optimizer_and_may_begin_before_the_first_step(kind):
    """As where fp16 overflows in the first step, which the gradient scaler skips."""

    def made():
        parameter = torch.nn.Parameter(torch.ones(2))
        return parameter, kind([parameter], lr=0.1)

    parameter, optimizer = made()
    values = []
    for step in range(3):
        if step:
            parameter.grad = torch.ones(2)
            optimizer.step()
        add_to_average(optimizer, step=step, momentum=1.0)
        values.append(parameter.detach().clone())
    again, other = made()
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    exchange(other)
    torch.testing.assert_close(again.detach(), torch.stack(values).mean(0))


def test_gates_are_averaged_as_they_are_used(make):
    trainer = make(nnUNetTrainerLNGSWRAT, {"weight_average": 1.0, **FULL})
    started(trainer)
    gates = trainer.lngswr.gate_parameters()
    own = trainer.optimizer.step

    def overshoot(*args, **kwargs):
        for gate in gates:
            gate.grad = torch.full_like(gate, -1e6)
        return own(*args, **kwargs)

    trainer.optimizer.step = overshoot
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    of_network = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    numbers = {id(parameter): number for number, parameter in enumerate(of_network)}
    for gate in gates:
        average = trainer.optimizer.state["averaged"][numbers[id(gate)]]
        assert float(average.max()) <= 1 / SCALE
        assert float(gate.detach().max()) == 1 / SCALE


def test_without_an_average_nothing_is_exchanged():
    optimizer = optimizer_of(1.0)
    before = deepcopy(optimizer.state_dict())
    exchange(optimizer)
    assert optimizer.param_groups[0]["params"][0].tolist() == [1, -1]
    assert optimizer.state_dict() == before


def noting_weights(trainer, step, noted):
    """The step, after which the trainer's weights are noted."""

    def step_and_note(batch):
        result = step(batch)
        noted.append(weights(trainer))
        return result

    return step_and_note


def test_the_average_is_validated_and_saved_and_the_training_goes_on_without_it(make):
    runs = {}
    for average in (0.0, 1.0):
        settings = {**LATE, "weight_average": average}
        trainer = make(nnUNetTrainerAT, settings, num_epochs=4, plans_name=f"average{average:g}")
        trained, validated = [], []
        trainer.train_step = noting_weights(trainer, trainer.train_step, trained)
        trainer.validation_step = noting_weights(trainer, trainer.validation_step, validated)
        trainer.run_training()
        runs[average] = trained, validated, trainer
        folder = Path(trainer.output_folder)
        saved = load_checkpoint(folder / "checkpoint_final.pth")["network_weights"]
        for key, value in saved.items():
            assert torch.equal(value, validated[-1][key])
            late = trained[4:] if average else trained[-1:]
            mean = torch.stack([state[key] for state in late]).mean(0)
            assert torch.allclose(value, mean, atol=1e-6), key
    (plain, seen, _), (beside, averaged, _) = runs.values()
    assert len(plain) == len(beside) == 8
    for one, other in zip(plain, beside, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    # in the first phase there is no average
    equal = [all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(seen, averaged, strict=True)]
    assert equal == [True, True, False, False]
