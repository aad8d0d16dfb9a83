"""Experiments of the paper, ready to run."""
