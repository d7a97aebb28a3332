"""Which device nnU-Net's commands shall use where none is named."""


def default_device() -> str:
    """Return "cuda" where there is one, else "cpu"; imports torch only when it is asked."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
