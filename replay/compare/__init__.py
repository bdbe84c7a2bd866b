"""Runs, traces or strategies side by side, and two outcomes down to where they part."""
