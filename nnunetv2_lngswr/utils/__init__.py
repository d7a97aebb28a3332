"""Files, processes, names: what every part of the project needs and none of them is about."""
