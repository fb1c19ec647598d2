"""One reader per on-disk format; every reader returns a list of ``Picture`` records."""
