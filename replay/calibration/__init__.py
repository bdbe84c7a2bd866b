"""Costs from recorded latencies, and modelled latencies held against recorded ones."""
