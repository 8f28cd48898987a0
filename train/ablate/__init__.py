"""Experiments, each `python -m train ablate NAME`: a table and a plot, with intervals that say what is chance."""
