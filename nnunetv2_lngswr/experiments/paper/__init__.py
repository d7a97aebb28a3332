"""`lngswr paper lidc | tnscui`: the paper's data sets, from converted data to one table.

Four trainers on five folds with nnU-Net's defaults; the paper's own settings are not known to us.

patient-wise splits -> plan and preprocess -> train four trainers on each fold (vanilla, LNG-SWR,
both with adversarial training) -> attack what each fold's model predicts on its validation cases
(clean, the standard suite with its control, PGD Linf and L2, SSAH) -> one table. The commands are
those that one would type. A step is known to be done by its outputs, so that a call goes on where
the last one stopped, on another machine too. Of the paper we have read the abstract only: budgets
are the defaults of nnU-Net and of `lngswr evaluate`, attacks those that the abstract names and the
suite.
"""

from nnunetv2_lngswr.experiments.paper.protocol import (
    DATASET_IDS,
    EPOCHS,
    FOLDERS,
    TRAINERS,
    Protocol,
)
from nnunetv2_lngswr.experiments.paper.run import run_paper

__all__ = ["DATASET_IDS", "EPOCHS", "FOLDERS", "TRAINERS", "Protocol", "run_paper"]
