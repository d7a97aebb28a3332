"""Raw data -> nnU-Net raw format: generated phantoms (phantom.py), and downloads (lidc.py, tnscui.py, image_folder.py) through conversion.py,
with patient-wise folds (splits.py)."""
