"""How far a ranking of strategies survives when the constants of a cost profile move."""
