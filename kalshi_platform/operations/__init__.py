"""Running the whole: starting and watching its processes, checking the ground, saying how it is."""
