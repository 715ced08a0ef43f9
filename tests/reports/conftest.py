"""Results to report on: stand-ins for models, the truth of two worlds spoiled in known measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from entitybench.converters.conversion import convert_source
from entitybench.converters.worlds import make_world
from entitybench.entity_set import Model
from entitybench.entity_writer import EntityWriter
from entitybench.metrics.benchmark import evaluate
from entitybench.metrics.protocol import STRICT, Protocol
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set
from entitybench.result import write_result

EPOCH = "1795392000"  # 2026-11-23
SCENES, SIZE = 15, 128
TESTS = ("coco_entity_val", "ade20k_entity_val")
COCO, ADE = "coco_entity_train", "ade20k_entity_train"


@dataclass(frozen=True)
class Bench:
    """Folders of a small benchmark, and how to add a stand-in to it."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def preds(self) -> Path:
        return self.root / "preds"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def predict(self, name: str, test: str, trained_on: tuple[str, ...], amount: float) -> None:
        """Write the truth, spoiled by `amount` in [0, 1], as predictions of a model."""
        how = Perturbation(amount / 3, amount / 3, amount / 2, round(8 * amount), amount)
        model = Model(name, trained_on=trained_on)
        with EntityWriter(self.preds / name / test, model=model) as writer:
            for number, image in enumerate(open_entity_set(test, self.data)):
                rng = np.random.default_rng([len(name), number])
                entity_map, scores = perturb(image.map, rng, how)
                writer.add(image.id, entity_map, scores, file_name=image.row.file_name)

    def score(self, name: str, test: str, protocol: Protocol = STRICT) -> None:
        """Write the result file and the match records, as `eval` does."""
        done = evaluate(self.preds / name, test, data=self.data, protocol=protocol)
        path = self.results / name / f"{test}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        done.evaluation.records.save(path.with_suffix(".matches.npz"))
        write_result(path, done.result)


# name → training sets, and how much its predictions are spoiled on COCO and on ADE20K
STAND_INS = {
    f"stand-in-a@{COCO}": ((COCO,), (0.15, 0.6)),
    f"stand-in-a@{ADE}": ((ADE,), (0.55, 0.25)),
    f"stand-in-a@{ADE}+{COCO}": ((ADE, COCO), (0.1, 0.2)),
    f"stand-in-b@{COCO}": ((COCO,), (0.3, 0.7)),
    f"stand-in-b@{ADE}": ((ADE,), (0.75, 0.4)),
    "stand-in-floor": ((), (0.95, 0.95)),
}


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two worlds converted, six stand-ins scored on both."""
    made = Bench(tmp_path_factory.mktemp("bench"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        for world in ("coco", "ade20k"):
            source = made.root / "sources" / world
            make_world(source, world, train=0, val=SCENES, size=SIZE, seed=0, jobs=1)
            convert_source(world, source, made.data, splits=["val"], jobs=1)
        for name, (trained_on, amounts) in STAND_INS.items():
            for test, amount in zip(TESTS, amounts, strict=True):
                made.predict(name, test, trained_on, amount)
                made.score(name, test)
    return made


@pytest.fixture(autouse=True)
def _fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
