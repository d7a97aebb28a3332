"""LNG-SWR for nnU-Net v2: layer-wise noise guided selective wavelet reconstruction (arXiv 2511.16162).

This module imports nothing heavy, so that ``lngswr --help`` answers at once.
"""

__version__ = "0.1.0"
