"""The engine `nni`: NNI's own manager hands out the trials, for its page and its training services."""
