"""Score palette-PNG sets once and print the CPU seconds: `… png_sets zlib|isal TRUTH PREDICTIONS`.

Imports are counted: a user pays for them.
"""

from __future__ import annotations

import sys
import time


def main(inflater: str, truth: str, predictions: str) -> None:
    if inflater == "zlib":
        sys.modules["isal"] = None  # type: ignore[assignment]  # as if it were not installed
    from entitybench.metrics.benchmark import evaluate

    evaluate(predictions, truth)
    print(time.process_time())


if __name__ == "__main__":
    main(*sys.argv[1:])
