"""Any network or callable as a model that is evaluated: what it was given as is what is attacked.

    z(x) = inference(x, network),  or network(x)

x is (1, C, *spatial), z (1, K, *spatial): logits, one channel per label or region. A network of one
channel for one label is a sigmoid, z, which is the softmax of (0, z). The gradient is autograd's
through the whole call, in the memory that this takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

import nnunetv2_lngswr
from evaluation.model.case import Case
from evaluation.model.described import described
from evaluation.model.kinds import GIVEN
from evaluation.model.prediction import Prediction, finite
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import LabelSpace
from nnunetv2_lngswr.attacks.models import BatchModel, DifferentiableModel, frozen
from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.label_names import BACKGROUND, check_labels

Function = Callable[[torch.Tensor], torch.Tensor]
Inference = Callable[[torch.Tensor, Any], torch.Tensor]
"""(x, network) -> logits, as MONAI's inferers."""
DIGITS = 4
"""Of `first_case_logits`: a network is known by them, whatever the machine rounds."""


class GivenModel:
    """A network with its inference as an EvaluatedModel.

    Parameters
    ----------
    network
        A module, any callable on x, or a DifferentiableModel, such as our SlidingWindow.
    inference
        What calls the network, None for itself.
    labels
        Of the channels of its logits.
    name, dataset
        For the report.
    device
        Where cases go.

    Attributes
    ----------
    device, label_space, label_manager
        As EvaluatedModel.
    first_case_logits
        Mean and standard deviation of each channel on the case that `probe` was given.
    """

    is_cascade = False
    surface_unit = "mm"
    training_seed = None

    def __init__(
        self,
        network: nn.Module | Function | DifferentiableModel,
        inference: Inference | None,
        labels: LabelManager,
        *,
        name: str,
        dataset: str,
        device: torch.device,
    ) -> None:
        self.name, self.dataset, self.device = name, dataset, device
        self.label_manager, self.label_space = labels, LabelSpace.from_label_manager(labels)
        self.first_case_logits: list[str] = []
        self._axes = 0
        self._modules = _modules_of(network)
        self._weights = _sha256(self._modules)
        self._inference = _text_of(network, inference)
        if is_differentiable(network):
            if inference is not None:
                raise UserError(
                    f"inference does not apply to a {type(network).__name__}, which has its own "
                    "logits and gradients; give it alone"
                )
            self._function: DifferentiableModel = network
        else:
            deployed = _Deployed(network, inference, len(self.label_space.heads))
            self._function = BatchModel(deployed)

    @property
    def has_encoder(self) -> bool:
        """Whether `ssah` finds the bottleneck of each window."""
        if isinstance(self._function, SlidingWindow):
            return all(hasattr(n, "encoder") for n in self._function.networks)
        network = getattr(self._function, "network", None)
        return isinstance(self._function, BatchModel) and hasattr(network, "encoder")

    def probe(self, case: Case, *, gradient: bool) -> None:
        """Call the network once and see that it can be evaluated.

        Parameters
        ----------
        case
            Any.
        gradient
            Whether attacks will need its gradient.

        Raises
        ------
        UserError
            What it returns are no logits of the case, or `gradient` and none reaches the image.
        """
        x = case.batch.to(self.device)
        z = self._function.logits(x)
        _check_logits(z, x, len(self.label_space.heads))
        finite(z[0])
        _refuse_probabilities(z, self.label_space)
        if gradient:
            self._refuse_detached(x)
        self._axes = x.ndim - 2
        channels = z[0].flatten(1).double()
        figures = torch.stack([channels.mean(1), channels.std(1)], 1).flatten().tolist()
        self.first_case_logits = [f"{figure:.{DIGITS}g}" for figure in figures]

    def sliding_window(self, **_: Any) -> DifferentiableModel:
        """What was given; it tiles, or not, by its own means."""
        return self._function

    def predict(self, case: Case, x: torch.Tensor | None = None) -> np.ndarray:
        """Labels of the case, or of a perturbed version x, (*spatial)."""
        return self.prediction(case, x).segmentation

    def prediction(self, case: Case, x: torch.Tensor | None = None) -> Prediction:
        """As `predict`, with probabilities."""
        x = case.x if x is None else x
        z = finite(self._function.logits(x[None].to(self.device))[0].cpu()).numpy()
        labels = np.asarray(self.label_manager.convert_logits_to_segmentation(z))
        return Prediction(segmentation=labels, logits=z, label_manager=self.label_manager)

    def save_perturbed(self, case: Case, x: torch.Tensor, folder: Path) -> float | None:
        """Refused: there are no files whose geometry it could have."""
        raise UserError(f"case {case.identifier} was given as an array")

    def describe(self) -> dict[str, Any]:
        """As SegmentationModel.describe, with `kind`, `inference` and `first_case_logits`."""
        return {
            "kind": GIVEN,
            "folder": None,
            "trainer": self.name,
            "plans": "",
            "dataset": self.dataset,
            "configuration": f"{self._axes}d",
            "folds": [],
            "checkpoint": None,
            "checkpoint_sha256": {} if self._weights is None else {"network": self._weights},
            "tile_step_size": None,
            "mirror_axes": None,
            "patch_size": None,
            "cascade": False,
            "regions": self.label_space.regions,
            "inference": self._inference,
            "first_case_logits": self.first_case_logits,
            "device": str(self.device),
            "versions": {
                "nnunetv2": version("nnunetv2"),
                "torch": torch.__version__,
                "nnunetv2_lngswr": nnunetv2_lngswr.__version__,
            },
        }

    def _refuse_detached(self, x: torch.Tensor) -> None:
        if not isinstance(self._function, BatchModel):
            return  # its gradient is its own affair
        deployed = self._function.network
        with frozen([deployed]), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            z = deployed(leaf)
            found = torch.autograd.grad(z.sum(), leaf, allow_unused=True)
        if found[0] is None:
            raise UserError(DETACHED)


DETACHED = (
    "the network's logits do not depend on the image as far as autograd sees, so that gradients do "
    "not reach it: is there a no_grad, inference_mode, detach, numpy or argmax in the network or "
    "its inference? Take it out, or run attacks without gradients (square) and corruptions alone"
)


class _Deployed(nn.Module):
    """x -> inference(x, network), checked. A module, so that one inside is frozen and restored."""

    def __init__(self, network: Any, inference: Inference | None, heads: int) -> None:
        super().__init__()
        self.inference, self.heads = inference, heads
        self.given = network
        if inference is None and isinstance(getattr(network, "encoder", None), nn.Module):
            self.encoder = network.encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.given(x) if self.inference is None else self.inference(x, self.given)
        if isinstance(z, torch.Tensor):
            z = z.as_subclass(torch.Tensor)  # MONAI's inferers keep its metadata
        if isinstance(z, torch.Tensor) and z.ndim == x.ndim and (z.shape[1], self.heads) == (1, 2):
            z = torch.cat([torch.zeros_like(z), z], 1)
        _check_logits(z, x, self.heads)
        if torch.is_grad_enabled() and x.requires_grad and not z.requires_grad:
            raise UserError(DETACHED)
        return z.to(x)


def label_manager(labels: Mapping[str, Any], regions_class_order: Any) -> LabelManager:
    """nnU-Net's, of labels as in dataset.json; the background may be left out.

    Raises
    ------
    UserError
        Labels that nnU-Net would not take, or that are not 0, 1, 2, ...
    """
    where = "labels"
    if isinstance(labels, Mapping):
        labels = {BACKGROUND: 0, **labels}
    check_labels(labels, regions_class_order, where)
    with blamed_on(f"{where}: nnU-Net does not take them"):
        manager = LabelManager(dict(labels), regions_class_order)
    found = [int(v) for v in manager.all_labels]
    if not manager.has_regions and found != list(range(len(found))):
        raise UserError(
            f"{where} must be 0, 1, 2, ... without a gap, one for each channel of the logits, got "
            f"{found}"
        )
    return manager


def is_differentiable(network: Any) -> TypeGuard[DifferentiableModel]:
    """Whether it is a DifferentiableModel already."""
    return hasattr(network, "value_and_gradient") and hasattr(network, "logits")


def device_of(network: Any) -> torch.device | None:
    """Where a network's weights are; None where it has none that are known."""
    if isinstance(network, SlidingWindow):
        return network.device
    tensors = [t for m in _modules_of(network) for t in (*m.parameters(), *m.buffers())]
    return tensors[0].device if tensors else None


def _check_logits(z: Any, x: torch.Tensor, heads: int) -> None:
    wanted = (len(x), heads, *x.shape[2:])
    if not isinstance(z, torch.Tensor):
        raise UserError(
            f"the network returned a {type(z).__name__}, and must return logits, a tensor {wanted};"
            " choose them with inference=lambda x, network: network(x)[0], or the like"
        )
    if tuple(z.shape) != wanted or not z.is_floating_point():
        raise UserError(
            f"the network must return logits {wanted} (one channel for each label or region, on "
            f"the grid of the image), got {str(z.dtype).removeprefix('torch.')} of shape "
            f"{tuple(z.shape)} for an image {tuple(x.shape)}"
        )


def _refuse_probabilities(z: torch.Tensor, space: LabelSpace) -> None:
    if not bool(((z >= 0) & (z <= 1)).all()):
        return
    sums = z.sum(1)
    # the sigmoid of one channel, to which that of the background was added
    alone = not z[:, 0].any() and bool(sums.any())
    if space.regions or alone or torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise UserError(
            "the network returned probabilities (all within 0 and 1), and must return logits: "
            "leave its softmax or sigmoid out"
        )


def _modules_of(network: Any) -> list[nn.Module]:
    if isinstance(network, SlidingWindow):
        return list(network.networks)
    if isinstance(network, BatchModel):
        network = network.network
    return [network] if isinstance(network, nn.Module) else []


def _sha256(modules: list[nn.Module]) -> str | None:
    """Of all weights and buffers; None without any, of which nothing is known."""
    if not any(module.state_dict() for module in modules):
        return None
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            if isinstance(value, torch.Tensor):
                digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _text_of(network: Any, inference: Inference | None) -> str:
    """How the network is deployed, with the plain settings of an inferer."""
    if isinstance(network, SlidingWindow):
        return (
            f"nnU-Net's sliding window, patch {network.patch_size}, tile step "
            f"{network.tile_step_size:g}, mirrored axes {network.mirror_axes}"
        )
    if inference is None:
        return "the network's own, on the whole case"
    return described(inference)
