"""A drawn eye and its photograph: pure functions of a generator of random numbers; no files."""
