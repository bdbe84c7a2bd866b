"""Runs: what a replay was asked to do, its results in memory, and the folder that holds them."""
