"""Losses that attacks ascend: softmax heads, region heads (sigmoid) and ignored voxels in one path.

Logits z are (B, K, *spatial). A `SegmentationTarget` carries the one-hot or multi-hot ground truth
and the mask of counted voxels. Every loss is built from maps of shape (B, R, *spatial), R = 1 for
softmax and K for regions, and is reduced to (B,): the mean over counted voxels and regions. Ignored
voxels leave every sum and N.

CE per voxel: -log softmax(z)[y]; per region: binary cross-entropy with logits. Soft Dice is no mean
over voxels: it sees the overlap of the whole case, label by label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from nnunetv2_lngswr.attacks.geometry import like_cases
from nnunetv2_lngswr.attacks.terms import check_temperature
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import lookup

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

LogitLoss = Callable[[torch.Tensor], torch.Tensor]
"""logits (B, K, *spatial) -> (B,), or a scalar for one case"""


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """What the network's heads mean."""

    heads: tuple[tuple[int, ...], ...]
    """For each output channel the label values it stands for (softmax: one each)."""
    regions: bool = False
    """Whether the heads overlap and are sigmoids."""
    ignore_label: int | None = None
    """Voxels of this label are not counted."""
    class_order: tuple[int, ...] | None = None
    """Of regions: the label that each head writes, later ones over earlier ones (nnU-Net's
    regions_class_order); None: every head is its own segmentation."""

    @classmethod
    def from_label_manager(cls, label_manager: LabelManager) -> LabelSpace:
        """From nnU-Net's LabelManager, in the order of its heads."""
        regions = label_manager.has_regions
        members = label_manager.foreground_regions if regions else label_manager.all_labels
        return cls(
            heads=tuple(_values_of(m) for m in members),
            regions=regions,
            ignore_label=label_manager.ignore_label,
            class_order=tuple(label_manager.regions_class_order or ()) if regions else None,
        )

    @classmethod
    def softmax(cls, classes: int, *, ignore_label: int | None = None) -> LabelSpace:
        """`classes` exclusive labels 0 .. classes - 1; 0 is background."""
        return cls(heads=tuple((i,) for i in range(classes)), ignore_label=ignore_label)

    def target(self, labels: torch.Tensor) -> SegmentationTarget:
        """The target that these labels mean.

        Parameters
        ----------
        labels
            (B, *spatial) integers after nnU-Net's preprocessing; -1 (outside the nonzero mask)
            counts as 0.

        Raises
        ------
        UserError
            A counted label belongs to no head of a softmax network.
        """
        labels = labels.long().clamp_min(0)
        if self.ignore_label is None:
            mask = torch.ones_like(labels, dtype=torch.bool)
        else:
            mask = labels != self.ignore_label
        one_hot = torch.stack(
            [torch.isin(labels, torch.tensor(h, device=labels.device)) for h in self.heads], 1
        )
        if not self.regions and not bool((one_hot.any(1) | ~mask).all()):
            unknown = sorted(set(labels[~one_hot.any(1) & mask].tolist()))
            raise UserError(
                f"labels {unknown} belong to no output of the network; "
                f"it knows {[h[0] for h in self.heads]}"
            )
        return SegmentationTarget(
            one_hot=one_hot, mask=mask[:, None], regions=self.regions, written_by=self.written_by
        )

    @property
    def written_by(self) -> tuple[tuple[int, ...], ...] | None:
        """For each region the heads whose label belongs to it; None without a class order."""
        if self.class_order is None:
            return None
        return tuple(
            tuple(i for i, label in enumerate(self.class_order) if label in members)
            for members in self.heads
        )


def _values_of(member: int | tuple[int, ...] | list[int]) -> tuple[int, ...]:
    if isinstance(member, (tuple, list)):
        return tuple(int(i) for i in member)
    return (int(member),)


@dataclass(frozen=True, kw_only=True)
class SegmentationTarget:
    """What the network should say, and where it counts."""

    one_hot: torch.Tensor
    """(B, K, *spatial) bool, what each head should say."""
    mask: torch.Tensor
    """(B, 1, *spatial) bool, counted voxels."""
    regions: bool
    """As in LabelSpace."""
    written_by: tuple[tuple[int, ...], ...] | None = None
    """As in LabelSpace."""

    @property
    def foreground_heads(self) -> torch.Tensor:
        """(B, heads without background, *spatial) bool, also where nothing is counted."""
        return self.one_hot if self.regions else self.one_hot[:, 1:]

    @property
    def foreground(self) -> torch.Tensor:
        """(B, 1, *spatial) bool, counted voxels of any foreground label."""
        return self.foreground_heads.any(1, keepdim=True) & self.mask

    def cases(self, where: torch.Tensor) -> SegmentationTarget:
        """Of these cases alone, by their indices (n,)."""
        where = where.to(self.mask.device)
        return replace(self, one_hot=self.one_hot[where], mask=self.mask[where])

    def to(self, device: torch.device | str) -> SegmentationTarget:
        """The same on a device."""
        return replace(self, one_hot=self.one_hot.to(device), mask=self.mask.to(device))


Loss = Callable[[torch.Tensor, SegmentationTarget], torch.Tensor]
"""logits (B, K, *spatial), target -> (B,)"""


def cross_entropy(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Mean CE per counted voxel (and region), (B,)."""
    return masked_mean(cross_entropy_map(z, target), target)


def dice_cross_entropy(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """nnU-Net's training loss per case: CE + (1 - mean soft Dice of the foreground heads), (B,)."""
    p = torch.sigmoid(z) if target.regions else torch.softmax(z, 1)[:, 1:]
    p = p * target.mask
    one_hot = (target.foreground_heads & target.mask).to(p)
    overlap = (p * one_hot).flatten(2).sum(2)
    size = p.flatten(2).sum(2) + one_hot.flatten(2).sum(2)
    dice = (2 * overlap + 1e-5) / (size + 1e-5)
    return cross_entropy(z, target) + 1 - dice.mean(1)


def masked_cross_entropy(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """mean C_i CE_i, C_i = 1 where the voxel is still right (Croce et al. 2023), (B,)."""
    return masked_mean(correct_map(z, target) * cross_entropy_map(z, target), target)


def jensen_shannon(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Mean Jensen-Shannon divergence between prediction and one-hot truth, (B,), in [0, log 2].

    Regions: between (p, 1 - p) and the region's truth.
    """
    # JS(p, e_y) depends on q = p_y only: the entropies of the remaining classes cancel
    log_q = -cross_entropy_map(z, target)
    q = log_q.exp()
    log_2 = torch.log(torch.tensor(2.0, dtype=z.dtype, device=z.device))
    log_middle = torch.log1p(q) - log_2
    # KL(p || m): class y gives q log(q / m_y), the others (1 - q) log 2; KL(e_y || m) = -log m_y
    kl_p = q * (log_q - log_middle) + (1 - q) * log_2
    return masked_mean(0.5 * (kl_p - log_middle), target)


def segpgd_loss(weight: float) -> Loss:
    """SegPGD's loss (Gu et al. 2022, eq. 4), `weight` being lambda, that of the wrong voxels.

    (1 / N) [sum over right voxels (1 - lambda) CE + sum over wrong voxels lambda CE].
    """

    def loss(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
        right = correct_map(z, target)
        weights = right * (1 - weight) + (1 - right) * weight
        return masked_mean(weights * cross_entropy_map(z, target), target)

    return loss


def cospgd_loss(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """CosPGD (Agnihotri et al. 2024): mean_i stopgrad(cos(p_i, onehot y_i)) CE_i, (B,)."""
    return masked_mean(cosine_map(z, target) * cross_entropy_map(z, target), target)


def soft_dice_loss(temperature: float = 1.0, *, scale_free: bool = False) -> Loss:
    """1 - mean soft Dice over the case, of p = softmax(z / T) or sigmoid(z / T).

    Per foreground head 2 sum(p y) / (sum(p) + sum(y)) over the counted voxels. Heads that the
    ground truth of a case lacks leave its mean. Where it has none at all, the loss is the mean of
    p: a false positive takes Dice from undefined to 0. T keeps the gradient alive where
    probabilities saturate.

    Parameters
    ----------
    temperature
        T in units of the logits, or, where `scale_free`, of the case's `mean_margin`.
    scale_free
        Whether multiplying all logits by a number leaves the loss as it is.

    Raises
    ------
    UserError
        A temperature that is not a positive number.
    """
    check_temperature(temperature)

    def loss(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
        p = sharpened(z, target, temperature, scale_free)
        dice, present = soft_dice_of_heads(p, target)
        mean = (dice * present).sum(1) / present.sum(1).clamp_min(1)
        return torch.where(present.any(1), 1 - mean, masked_mean(p, target))

    return loss


def sharpened(
    z: torch.Tensor, target: SegmentationTarget, temperature: float, scale_free: bool
) -> torch.Tensor:
    """p of the foreground heads at a temperature, 0 where nothing is counted."""
    scaled = z / temperature
    if scale_free:
        scaled = scaled / like_cases(mean_margin(z, target), z)
    p = torch.sigmoid(scaled) if target.regions else torch.softmax(scaled, 1)[:, 1:]
    return torch.where(target.mask, p, torch.zeros_like(p))


def soft_dice_of_heads(
    p: torch.Tensor, target: SegmentationTarget
) -> tuple[torch.Tensor, torch.Tensor]:
    """(soft Dice, whether the ground truth has it) of each foreground head, (B, R)."""
    truth = (target.foreground_heads & target.mask).to(p)
    overlap, found, there = (v.flatten(2).sum(2) for v in (p * truth, p, truth))
    dice = 2 * overlap / (found + there).clamp_min(torch.finfo(p.dtype).tiny)
    return dice, there > 0


@torch.no_grad()
def mean_margin(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Mean decision margin over counted voxels (and regions), (B,), without a gradient.

    The highest minus the second logit, or |z| of regions; 1 where all of them are 0.
    """
    if target.regions:
        margin = z.abs()
    else:
        top = z.topk(2, 1).values
        margin = top[:, :1] - top[:, 1:]
    mean = masked_mean(margin, target)
    return torch.where(mean > 0, mean, torch.ones_like(mean))


SCALE_FREE_TEMPERATURE = 0.05
"""Of `scale_free_dice` by default. Larger ones keep pulling at voxels that are decided, far smaller
ones leave a gradient at few."""

LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "dice_ce": dice_cross_entropy,
    "masked_ce": masked_cross_entropy,
    "js": jensen_shannon,
    "cospgd": cospgd_loss,
    "soft_dice": soft_dice_loss(),
    "scale_free_dice": soft_dice_loss(SCALE_FREE_TEMPERATURE, scale_free=True),
}
"""What an attack may ascend; `terms.LOSS_NAMES` holds the names without torch."""

FADING = frozenset({"masked_ce", "cospgd", "segpgd"})
"""Losses that fade where the attack has won, and so do not rank iterates.

Masked CE and CosPGD fall when voxels flip, and SegPGD's weight changes with the step. Their
iterates are judged by CE.
"""


def get_loss(name: str) -> Loss:
    """The loss of that name; UserError with the nearest names otherwise."""
    return lookup(LOSSES, name, "loss")


def judge_of(name: str) -> Loss:
    """What ranks iterates of equal Dice, of an attack that ascends `name`."""
    return cross_entropy if name in FADING else get_loss(name)


def per_case(value: torch.Tensor) -> torch.Tensor:
    """A loss as (B,); a scalar is one case."""
    return value.reshape(1) if value.ndim == 0 else value


def cross_entropy_map(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """CE of each voxel and region, (B, R, *spatial)."""
    if target.regions:
        return F.binary_cross_entropy_with_logits(z, target.one_hot.to(z), reduction="none")
    # ignored voxels have no class: argmax gives 0 there and the mask drops them
    return F.cross_entropy(z, target.one_hot.to(torch.uint8).argmax(1), reduction="none")[:, None]


@torch.no_grad()
def correct_map(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """1 where the prediction is right, (B, R, *spatial), without a gradient."""
    if target.regions:
        return ((z > 0) == target.one_hot).to(z)
    return target.one_hot.gather(1, z.argmax(1, keepdim=True)).to(z)


@torch.no_grad()
def cosine_map(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Cosine of probabilities and one-hot truth, (B, R, *spatial), without a gradient."""
    if target.regions:
        p = torch.sigmoid(z)
        return torch.where(target.one_hot, p, 1 - p) / (p.square() + (1 - p).square()).sqrt()
    p = torch.softmax(z, 1)
    return (p * target.one_hot).sum(1, keepdim=True) / p.square().sum(1, keepdim=True).sqrt()


def masked_mean(values: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Mean of (B, R, *spatial) over counted voxels and regions, (B,); 0 where none is counted."""
    total = torch.where(target.mask, values, torch.zeros_like(values)).flatten(1).sum(1)
    return total / (target.mask.flatten(1).sum(1) * values.shape[1]).clamp_min(1)
