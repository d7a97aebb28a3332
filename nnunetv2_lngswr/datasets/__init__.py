"""Raw data -> nnU-Net raw format, with patient-wise folds.

Generated phantoms (phantom.py), and downloads (lidc.py, tnscui.py, image_folder.py) through
conversion.py. splits.py keeps what belongs together in one fold, near_duplicates.py finds images
that lie on both sides of a fold border.
"""
