"""Recording on a live dom0: which probes, how tracefs is driven and left, what is packed."""
