"""Files that `lngswr register` copies into nnU-Net.

This folder may also be given to nnUNet_extTrainer as it is.
"""
