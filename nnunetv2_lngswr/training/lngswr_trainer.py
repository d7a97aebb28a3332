"""LNGSWRTrainer: attaches LNG-SWR to nnU-Net's network and does what it needs in training.

The noise is seeded and ramped up, the gates have no weight decay and stay in [0, 1], the priors are
updated once per step; gains and priors go to the log and into lngswr.json and lngswr.png. Where the
noise is guided, samples stay two steps, and the second step knows the gradient of the first.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import LNGSWR, attach, find_lngswr
from nnunetv2_lngswr.training.adversarial_settings import GUIDED_STEPS, guides
from nnunetv2_lngswr.training.history import gain_lines, plot_history, read_history
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer
from nnunetv2_lngswr.training.schedule import ramp
from nnunetv2_lngswr.training.settings import TrainerSettings
from nnunetv2_lngswr.training.undecayed import undecay
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.seeds import stream_seed


class LNGSWRTrainer(PlansEntryTrainer):
    """What the trainers of LNG-SWR share (arXiv 2511.16162); each has a `method` of its own."""

    _steps = 0  # begun in this run

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """nnU-Net's network for the plans, with LNG-SWR attached.

        Prediction calls this on the class.

        Parameters
        ----------
        plans_manager, configuration_manager
            nnU-Net's, of the plans and of one configuration.
        num_input_channels, num_output_channels
            Of the network.
        enable_deep_supervision
            Whether the decoder gives its coarser outputs too.

        Raises
        ------
        UserError
            The "lngswr" entry of the plans is invalid.
        """
        network = super().build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        method = _method_of(cls.read_settings(configuration_manager.configuration))
        return attach(network, method, patch_size=configuration_manager.patch_size)

    def _written_entry(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **super()._written_entry(configuration),
            **dataclasses.asdict(_method_of(self.settings)),
        }

    @property
    def lngswr(self) -> LNGSWR:
        """The parts that were attached."""
        assert isinstance(self.network, torch.nn.Module)
        lngswr = find_lngswr(self.network)
        assert lngswr is not None
        return lngswr

    def initialize(self):
        super().initialize()
        self._free_gates()

    def _free_gates(self) -> None:
        """Not in configure_optimizers, in whose place trainers with other optimisers put theirs."""
        gates, optimizer = self.lngswr.gate_parameters(), self.optimizer
        assert optimizer is not None
        # weight decay would pull the gates towards the identity
        if gates and undecay(optimizer, self.lr_scheduler, gates):
            # with the step itself: what averages the weights after it takes them as they are used
            optimizer.register_step_post_hook(lambda *_: self.lngswr.clamp_gates_())

    def on_train_start(self):
        super().on_train_start()
        if self.is_ddp and self.settings.run.seed is None:
            # torch starts every process from the same default seed: compiled noise would be equal
            # on all ranks
            torch.manual_seed(secrets.randbits(63))
        self._history = read_history(self._history_file, before_epoch=self.current_epoch)
        if _method_of(self.settings).noise_guided and not self._may_guide:
            self.print_to_log_file(
                "noise_guided has no effect: there is no noise, or every epoch attacks"
            )

    def _seed_streams(self, seed: int, epoch: int) -> None:
        super()._seed_streams(seed, epoch)
        if self.network is not None:
            rank = self.local_rank
            self.lngswr.seed_noise(lambda layer: stream_seed(seed, epoch, rank, layer))

    @property
    def _may_guide(self) -> bool:
        return guides(self.settings.method, self.settings.adversarial)

    @property
    def _guides(self) -> bool:
        """Whether this epoch's noise is guided: not that of samples which are attacked."""
        return self._may_guide and not self._attacking

    @property
    def _shares(self) -> int:
        return GUIDED_STEPS if self._may_guide else super()._shares

    @property
    def _rolls(self) -> bool:
        return self._guides or super()._rolls

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self._free_gates()  # of an optimiser that was made anew
        self._steps = self.current_epoch * self.num_iterations_per_epoch
        self._forget_gradients()

    def on_train_epoch_end(self, train_outputs: list[dict]):
        super().on_train_epoch_end(train_outputs)
        self._forget_gradients()  # validation needs the memory

    def _forget_gradients(self) -> None:
        for guidance in self.lngswr.guidance():
            guidance.restart()

    def train_step(self, batch: dict) -> dict:
        self._steps += 1
        steps = self.num_epochs * self.num_iterations_per_epoch
        lngswr = self.lngswr  # once: it is looked for among all modules
        ramp_steps = lngswr.config.noise_ramp_up * steps
        lngswr.set_noise_strength(self._noise_factor * ramp(self._steps, ramp_steps))
        if self._guides:
            batch = self._guided_batch(batch)
        result = super().train_step(batch)
        lngswr.commit_priors()
        return result

    def _guided_batch(self, batch: dict) -> dict:
        """The batch in which new samples have come, and to whose others the gradient is known."""
        for guidance in self.lngswr.guidance():
            guidance.pass_on(new=len(batch["data"]))
        return self._window.admit(self._on_device(batch))

    # --- gains and priors, for people to look at

    def on_epoch_end(self):
        if self.local_rank == 0:
            branches = self.lngswr.state()
            self._history.append({"epoch": self.current_epoch, "branches": branches})
            for line in gain_lines(branches):
                self.print_to_log_file(*line)
            write_file(self._history_file, json.dumps(self._history, indent=1))
            plot_history(self._history, self._history_file.with_suffix(".png"))
        super().on_epoch_end()

    @property
    def _history_file(self) -> Path:
        assert self.output_folder is not None  # nnU-Net made it
        return Path(self.output_folder) / "lngswr.json"


def _method_of(settings: TrainerSettings) -> LNGSWRConfig:
    assert settings.method is not None  # the class has a `method`
    return settings.method
