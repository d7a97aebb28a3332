"""LNG-SWR itself (arXiv 2511.16162) on any network with ``.encoder.stages``: torch and NumPy alone."""
