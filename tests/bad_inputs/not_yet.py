"""Rows that do not hold yet, each with what happens today; strict, so that a mended one is told."""

NOT_YET = {
    "compare: the same folder twice in one model": "accepted",
    "evaluate arguments: output is a circle": "refused without the option's name",
    "evaluate images: image is complex": "accepted",
    "evaluate images: image is huge in value": "accepted",
    "evaluate images: image of spacing below 0": "refused, after lines of ITK's own",
    "evaluate images: label of spacing below 0": "refused, after lines of ITK's own",
    "evaluate images: label that is complex": "accepted",
    "evaluate models: dataset: two of one value": "accepted",
    "evaluate models: plans: patch is huge": "a traceback of numpy's",
    "evaluate models: plans: spacing is tiny": "refused without the word spacing",
    "evaluate models: plans: without architecture": "refused, after a warning of nnU-Net's",
    "evaluate models: two folds of two trainers' configurations": "refused without the fold's name",
    "image-folder: journal of something else": "accepted",
    "image-folder: output is the input": "accepted",
    "warm-start: checkpoint: without architecture": "refused, after a warning of nnU-Net's",
}
