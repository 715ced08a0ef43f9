"""Score palette-PNG sets once and print the CPU seconds: `… png_sets TRUTH PREDICTIONS [quick]`.

Imports are counted: a user pays for them.
"""

from __future__ import annotations

import sys
import time


def main(truth: str, predictions: str, quick: str = "") -> None:
    from entitybench.metrics.benchmark import evaluate

    evaluate(predictions, truth, tables=not quick)
    print(time.process_time())


if __name__ == "__main__":
    main(*sys.argv[1:])
