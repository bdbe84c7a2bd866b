"""`replay report`: one page of figures and tables, from a run's results alone."""
