"""One reader per on-disk format; every reader returns a list of `Picture` records.

A reader turns a record of its files into a `collect.Entry`, which says where the record has its parts; `collect_pictures` checks and
groups them. `formats.READERS` names the readers for a run's configuration.
"""
