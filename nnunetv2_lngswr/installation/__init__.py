"""The place of this package inside an installed nnU-Net."""
