"""From the files of a data set to `Picture` records: `formats` finds the parts of a record, `collect` checks and groups them."""
