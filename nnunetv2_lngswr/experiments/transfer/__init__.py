"""`lngswr benchmark transfer`: models on data sets that they were not trained on.

Every model is evaluated by `lngswr evaluate` on the validation cases of its own data set and on the
cases of every other one, fold by fold, so that the same networks are judged on both. Labels must
mean the same, channels must be as many and normalised alike, and no case may lie in two data sets.

OUT holds evaluations/, a log per command, and transfer.md, transfer.json and transfer.png: models
by data sets, the way from the own data set to each other one, and the models side by side on the
same cases. nnU-Net's folders and the models are only read. What has ended is not repeated.

options.py says what can be asked for, models.py reads the models, data_sets.py the data sets,
meaning.py and shared_cases.py say what does not go together, cells.py plans the evaluations,
figures.py makes numbers of them, report.py and heat_map.py write, and run.py calls them in turn.
"""

from nnunetv2_lngswr.experiments.transfer.options import Options

__all__ = ["Options"]
