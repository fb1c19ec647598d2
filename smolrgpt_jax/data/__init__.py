"""Question records -> validated pictures -> tokens and pixels -> packed rows -> batches."""
