"""`lngswr robustify`: a trained nnU-Net model made robust with a share of its own training.

What a late adversarial training does in its last phase, alone: the model's plans are copied under a
new name with a "lngswr" entry, the network starts from the model's weights, segmentation heads
included, and nnUNetv2_train trains it adversarially for a share of the model's epochs, with a
learning rate that starts again. Data that are preprocessed for the model are used as they are. The
model is evaluated before and after, and the two are compared.

OUT holds start/ (what each fold starts from), nnUNet_results/ (an ordinary model folder),
evaluations/before and /after, comparison/, a log per command, and of a model that came as a zip
file given/. In nnUNet_preprocessed one plans file is added; the given model is only read.

options.py says what can be asked for, given_model.py reads the model, preprocessed.py looks for its
data, new_plans.py copies its plans, start.py makes what a fold starts from, steps.py lists the
commands, and run.py calls them in turn.
"""

from nnunetv2_lngswr.experiments.robustify.options import TRAINERS, Options

__all__ = ["TRAINERS", "Options"]
