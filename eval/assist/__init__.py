"""Help for pictures that come without depth or without masks; needs the extra `assist`."""
