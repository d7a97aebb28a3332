"""Raw data -> nnU-Net raw format: generated phantoms (phantom.py)."""
