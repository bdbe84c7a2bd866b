"""Runs and traces as files for ui.perfetto.dev and trace_processor."""
