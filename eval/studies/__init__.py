"""Studies of what answers rest on and of what training takes: one command, a table and a plot each.

`python -m eval.studies NAME --help` tells what each does; the measured tables stand in docs/studies.md. A study of another model
than the published one adds it to variants.py and its variants to configs/studies.py.
"""
