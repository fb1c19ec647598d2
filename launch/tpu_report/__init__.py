"""What a compiled program needs of a chip: memory, FLOPs, collectives, and an estimate of its time."""
