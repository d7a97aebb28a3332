"""LNG-SWR itself (arXiv 2511.16162) on any network with ``.encoder.stages``.

Imports torch, NumPy and PyWavelets alone.
"""
