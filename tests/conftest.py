"""For all tests, before any of them imports numpy."""

import os

# Threads of a BLAS make the small matrices of calibration slower, on two cores up to 14 times.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
