"""The command ``lngswr``, a file per group of commands."""
