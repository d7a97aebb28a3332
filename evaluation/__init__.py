"""Honest robustness evaluation for any nnU-Net v2 model folder.

The core in one page (everything carries a batch axis; a case is B = 1):

    from evaluation.model.folder import SegmentationModel
    from nnunetv2_lngswr.attacks import run_attack, ThreatModel, parse_epsilon, attack_names

    model = SegmentationModel.from_folder(folder, folds=None, checkpoint="checkpoint_final.pth", device="cpu", tile_step_size=0.5,
                                          use_mirroring=True, trust_checkpoint=False)
    case = model.preprocess(image_files, label_file, previous_stage_file=None)      # Case, see below
    clean = model.predict(case)                          # np.ndarray in the file's geometry, nnU-Net's arithmetic (fp16 sums)
    threat = ThreatModel(norm="linf", epsilon=parse_epsilon("8/255"), unit="range")  # L2: epsilon is the RMS per voxel
    result = run_attack("pgd_linf", model.sliding_window(window_batch_size=4), case.batch, case.target(model.label_space),
                        threat.ball(case.bounds), generator=torch.Generator().manual_seed(0), steps=20, restarts=1)
    attacked = model.predict(case, result.perturbed[0])  # same arithmetic, perturbed input

On CUDA keep x and the target on one device (case.batch.to(device), target.to(device)); the ball follows x, generators stay on the CPU.

- Case (frozen): identifier, x (C, *spatial) float32 with the previous stage's one-hot appended, labels (*spatial) preprocessed with -1 -> 0
  (None without a label), ground_truth (label in the file's geometry, None without), properties (nnU-Net's), spacing, image_channels,
  file_scale / file_offset (per channel, x = scale * file + offset; None where not affine), batch (1, C, *spatial), bounds.
- SegmentationModel: folder, folds, checkpoint, checkpoint_sha256 {fold: hash}, trainer_name, configuration (name), plans, dataset_json,
  configuration_manager, label_manager, label_space, mirror_axes, tile_step_size, patch_size, file_ending, image_channels, is_cascade;
  predict_logits(x), predict(case, x=None), write_segmentation(seg, path, case), write_case(case, x, folder) -> paths
  (floats; perturbed_files.roundtrip_error says how exact), check_surrogate(other) before `transfer`, list_images(folder) -> {identifier: channel files},
  sliding_window(window_batch_size=None, autocast=None, folds=None), describe() (JSON-ready record for the report).
- AttackResult (frozen): attack, perturbed (B, C, *spatial), loss, loss_history, best_loss_history, dice (preprocessed grid, a diagnostic),
  norms {'linf_range', 'rms_normalized', 'l2_original', ...: (B,)}, forwards, gradients, queries, settings, extras.
- Attack names: attack_names(); torchattacks:NAME also works where that package is installed. AttackSpec says norms, defaults, what it
  needs. Unknown names: ValueError with the nearest ones. `transfer` takes surrogate=<another SlidingWindow> and attack="pgd" or
  "segpgd".
- Bad input raises ValueError with what, where and the fix.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # `evaluation.evaluate` without importing torch for those who only ask for --help
    if name in ("evaluate", "estimate"):
        from evaluation import robust

        return getattr(robust, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
