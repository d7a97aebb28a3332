import torch

from nnunetv2_lngswr.attacks import BatchModel, Bounds, ThreatModel, run_attack
from tests.attacks.problems import SPACE
from tests.model_folders import make_network


def test_fgsm_is_a_full_signed_step(trained):
    network, x, y = trained[2]
    x, y = x[:1].double(), y[:1]
    network = make_network(2, seed=1).double()
    network.load_state_dict(trained[2][0].state_dict())
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(network(leaf), y), leaf)
    ball = ThreatModel(norm="linf", epsilon=0.01).ball(Bounds.of(x))
    result = run_attack(
        "fgsm", BatchModel(network), x, SPACE.target(y), ball, generator=torch.Generator()
    )
    expected = (x + 0.01 * (x.max() - x.min()) * gradient.sign()).clamp(x.min(), x.max())
    assert torch.allclose(result.perturbed, expected, atol=1e-12) and result.gradients == 1
