"""An nnU-Net v2 model folder as a function to attack: reading it, its cases, its sliding window."""
