"""Runs in Apache Otava's own environment: its change points in exported series, night by night.

python otava_nights.py FOLDER: reads otava.yaml and nights.json (test: numbers of nights known) in
FOLDER with Otava's own reader, and prints as JSON by test the places of its change points after
each of those nights. Options are Otava's own: window 50, P 0.001, no least magnitude.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from otava.config import load_config_from_file  # type: ignore[import-not-found]
from otava.data_selector import DataSelector  # type: ignore[import-not-found]
from otava.importer import CsvImporter  # type: ignore[import-not-found]
from otava.series import Series  # type: ignore[import-not-found]


def main(folder: Path) -> None:
    os.chdir(folder)
    config = load_config_from_file("otava.yaml")
    every = DataSelector()
    every.since_time = datetime(2000, 1, 1, tzinfo=UTC)  # its default is a year ago
    found = {}
    for test, nights in json.loads(Path("nights.json").read_text()).items():
        whole = CsvImporter().fetch_data(config.tests[test], every)
        assert len(whole.time) >= max(nights), 'it left nights out'
        found[test] = [
            sorted({int(point.index) for point in Series(
                test, None, whole.time[:n], whole.metrics, {"ns": whole.data["ns"][:n]},
                {"commit": whole.attributes["commit"][:n]}).analyze().change_points["ns"]})
            for n in nights]
    print(json.dumps(found))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(Path(sys.argv[1]))
