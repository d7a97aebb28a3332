"""LNG-SWR for nnU-Net v2 (arXiv 2511.16162).

Layer-wise noise guided selective wavelet reconstruction, as trainers.

This module imports nothing heavy, so that ``lngswr --help`` answers at once.
"""

__version__ = "0.1.0"
