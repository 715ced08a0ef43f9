"""Running a model: photographs in, entity maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from entitybench.baselines.augmentation import stack, to_device
from entitybench.baselines.batch import Images
from entitybench.baselines.model import BaselineModel, Classes, MaskCandidates
from entitybench.baselines.painting import paint
from entitybench.baselines.placement import Placement, canvas_for, whole_placement
from entitybench.baselines.settings import Data
from entitybench.baselines.source import read_plain
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, EntityImage, EntitySet, Model, Provenance
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError, MissingDataError
from entitybench.photographs import read_photograph

_Item = TypeVar("_Item")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One image.

    Attributes:
        map: Its entities, best first.
        scores: `(N,)` float64 in [0, 1].
        labels: `(N,)` int64 classes, 0 for class-agnostic models.
    """

    map: EntityMap
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One photograph on its canvas's terms, still on the host."""

    pixels: NDArray[np.uint8]
    placement: Placement
    canvas: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """The boxes of one image, best first.

    Attributes:
        boxes: `(N, 4)` float64 x, y, width and height in pixels of the photograph.
        scores: `(N,)` float64 in [0, 1].
        labels: `(N,)` int64 classes, 0 for class-agnostic models.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


class Predictor:
    """A model with everything that prediction needs.

    Args:
        model: On its device, in evaluation mode.
        data: How photographs are resized.
        rescore: Whether scores are multiplied by mean mask probabilities.
        least_side: Painted entities with a shorter side are dropped.
        classes: Those that the model tells apart. They are written beside its entities, and
            never change their score.
    """

    def __init__(
        self,
        model: BaselineModel,
        data: Data,
        *,
        rescore: bool = False,
        least_side: int = 1,
        classes: Classes = Classes(),  # noqa: B008  # immutable
    ) -> None:
        self.model = model
        self.classes = classes
        self._data = data
        self._divisor = max(model.divisor, data.divisor)
        self._rescore = rescore
        self._least_side = least_side

    @classmethod
    def of(cls, model: BaselineModel, config: Any, classes: Classes = Classes()) -> Predictor:  # noqa: B008  # immutable
        """Make one as a configuration says."""
        inference = getattr(config, "inference", None)
        return cls(
            model,
            config.data,
            rescore=getattr(inference, "rescore", False),
            least_side=getattr(inference, "least_side", 1),
            classes=classes,
        )

    @property
    def categories(self) -> list[Category]:
        """The classes as categories; ids count from 1."""
        pairs = zip(self.classes.names, self.classes.things, strict=True)
        return [Category(n, name, isthing=thing) for n, (name, thing) in enumerate(pairs, 1)]

    def provenance(self, prediction: Prediction) -> list[Provenance]:
        """Return the category of each predicted entity; none for a class-agnostic model."""
        if not self.classes:
            return []
        return [
            Provenance(category_id=label + 1, isthing=self.classes.things[label])
            for label in prediction.labels.tolist()
        ]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def prepare(self, photograph: Image.Image) -> Prepared:
        """Make a photograph ready; for any thread."""
        size = photograph.height, photograph.width
        placement = whole_placement(size, self._data)
        canvas = canvas_for([placement], self._data_whole, self._divisor)
        pixels = read_plain(photograph, placement.resized).pixels
        return Prepared(pixels, placement, canvas, size)

    @property
    def _data_whole(self) -> Data:
        """Placement at prediction knows no crop."""
        return Data(divisor=self._data.divisor)

    def images_of(self, prepared: Sequence[Prepared]) -> Images:
        """Move photographs of one canvas to the device and resize them there."""
        decoded = [read_plain(Image.fromarray(p.pixels), p.pixels.shape[:2]) for p in prepared]
        host = stack(decoded, [p.placement for p in prepared], prepared[0].canvas, 1)
        return to_device(host, self.device).images

    @torch.no_grad()
    def candidates(self, prepared: Sequence[Prepared]) -> MaskCandidates:
        """Return the candidates of photographs of one canvas."""
        return self.model.candidates(self.images_of(prepared))

    def paint(self, found: MaskCandidates, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Paint candidates at the photographs' own sizes."""
        painted = [
            paint(
                found,
                number,
                p.placement.visible,
                p.size,
                rescore=self._rescore,
                least_side=self._least_side,
            )
            for number, p in enumerate(prepared)
        ]
        return [Prediction(*one.to_host()) for one in painted]

    def detect(self, photographs: Sequence[Image.Image]) -> list[Detected]:
        """Find boxes alone, in photographs of any sizes; what a detector can do."""
        found = []
        for photograph in photographs:
            prepared = self.prepare(photograph)
            found.append(_boxes(self.candidates([prepared]), prepared))
        return found

    def predict(self, photographs: Sequence[Image.Image]) -> list[Prediction]:
        """Predict photographs of any sizes, in their order."""
        prepared = [self.prepare(photograph) for photograph in photographs]
        return [prediction for _, prediction in sorted(self._grouped(prepared), key=_first)]

    def _grouped(self, prepared: Sequence[Prepared]) -> Iterator[tuple[int, Prediction]]:
        """Yield place and prediction, canvas by canvas."""
        numbered = sorted(enumerate(prepared), key=lambda pair: (pair[1].canvas, pair[0]))
        for _, group in groupby(numbered, key=lambda pair: pair[1].canvas):
            places, same = zip(*group, strict=True)
            found = self.candidates(same)
            yield from zip(places, self.paint(found, same), strict=True)


def _boxes(found: MaskCandidates, prepared: Prepared) -> Detected:
    """Bring the boxes of one image from the canvas to the photograph."""
    valid = found.valid[0]
    corners = found.boxes[0][valid].double().cpu().numpy().reshape(-1, 2, 2)  # x, y
    shown, size = np.array(prepared.placement.visible[::-1]), np.array(prepared.size[::-1])
    corners = np.clip(corners * (size / shown), 0, size)
    boxes = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1)
    scores = found.scores[0][valid].double().cpu().numpy()
    return Detected(boxes, scores, found.labels[0][valid].cpu().numpy())


def _first(pair: tuple[int, Prediction]) -> int:
    return pair[0]


Progress = Callable[[int], None]


def predict_set(
    predictor: Predictor,
    truth: EntitySet,
    out: Path,
    described: Model,
    *,
    options: dict[str, str | int | float | bool | None],
    images: str | None = None,
    batch: int = 1,
    threads: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EntitySet:
    """Predict every image of an entity set, once.

    Interrupted, the same call goes on. Images are batched by their place in the set, so what is
    written does not depend on where a run was interrupted.

    Args:
        predictor: The model.
        truth: Whose images; its entities are not read.
        out: The entity set to write.
        described: What made the predictions.
        options: Choices that shape them; a set that was made with others is refused.
        images: Where the photographs are; the set knows unless given.
        batch: Images at once.
        threads: Readers.
        overwrite: Replace a set made with other options.
        progress: Is called with how many images are done.

    Raises:
        MissingDataError: Nobody knows where the photographs are, or one is missing.
        ConflictError: Something else is at `out`.
    """
    location = images or truth.photographs
    if location is None:
        msg = f"nobody knows where the photographs of `{truth.header.name}` are"
        raise MissingDataError(msg, hint="`--images` names their folder or archive")

    def read(image: EntityImage) -> Prepared:
        photograph = read_photograph(location, image.row.file_name)
        if photograph.size != (image.row.width, image.row.height):
            msg = (
                f"the photograph is {photograph.width}×{photograph.height}, the set says otherwise"
            )
            raise FormatError(msg, where=f"{truth.path}: image {image.id}")
        return predictor.prepare(photograph)

    with EntityWriter(
        out,
        model=described,
        options=options,
        categories=predictor.categories,
        images=location,
        overwrite=overwrite,
    ) as writer:
        if not writer.already_complete:
            entries = ((image.id, image.row.file_name, image) for image in truth)
            _write_all(predictor, writer, entries, read, batch, threads, progress)
    return EntitySet(_store(out))


def _store(path: Path) -> Any:
    from entitybench.entity_set import open_path

    return open_path(path).store


def predict_folder(
    predictor: Predictor,
    folder: Path,
    out: Path,
    described: Model,
    *,
    options: dict[str, str | int | float | bool | None],
    batch: int = 1,
    threads: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EntitySet:
    """Predict plain photographs; the arguments are those of `predict_set`.

    Raises:
        MissingDataError: The folder holds no photograph.
        FormatError: Two photographs share a stem, or one cannot be read.
    """
    files = list_photographs(folder)

    def read(file: Path) -> Prepared:
        return predictor.prepare(read_photograph(str(folder), file.name))

    with EntityWriter(
        out,
        model=described,
        options=options,
        categories=predictor.categories,
        images=str(folder),
        overwrite=overwrite,
    ) as writer:
        if not writer.already_complete:
            entries = ((file.stem, file.name, file) for file in files)
            _write_all(predictor, writer, entries, read, batch, threads, progress)
    return EntitySet(_store(out))


def list_photographs(folder: Path) -> list[Path]:
    """Return the photographs of a folder by name.

    Raises:
        MissingDataError: There is none.
        FormatError: Two share a stem, which is their id.
    """
    if not folder.is_dir():
        msg = f"no folder `{folder}`"
        raise MissingDataError(msg)
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not files:
        msg = f"`{folder}` holds no photograph"
        raise MissingDataError(msg, hint=f"known are {', '.join(SUFFIXES)}")
    stems: dict[str, str] = {}
    for file in files:
        other = stems.setdefault(file.stem, file.name)
        if other != file.name:
            msg = f"two photographs are called `{file.stem}`"
            raise FormatError(msg, where=[str(folder / other), str(file)])
    return files


def _write_all(
    predictor: Predictor,
    writer: EntityWriter,
    entries: Iterable[tuple[str, str, Any]],
    read: Callable[[Any], Prepared],
    batch: int,
    threads: int,
    progress: Progress | None,
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        chunks = _chunks(entries, batch)
        waiting = _begin(chunks, writer, read, pool)
        while waiting is not None:
            chunk, futures = waiting
            waiting = _begin(chunks, writer, read, pool)  # read ahead while the model runs
            prepared = [future.result() for future in futures]
            done = [p for _, p in sorted(predictor._grouped(prepared), key=_first)]
            for (image_id, file_name, _), prediction in zip(chunk, done, strict=False):
                writer.add(
                    image_id,
                    prediction.map,
                    prediction.scores,
                    file_name=file_name,
                    entities=predictor.provenance(prediction),
                )
            if progress is not None:
                progress(len(chunk))


def _chunks(entries: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    iterator = iter(entries)
    while chunk := tuple(islice(iterator, size)):
        yield chunk


def _begin(
    chunks: Iterator[tuple[Any, ...]],
    writer: EntityWriter,
    read: Callable[[Any], Prepared],
    pool: ThreadPoolExecutor,
) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Start reading the next chunk that is not finished whole."""
    for chunk in chunks:
        if any(image_id not in writer.finished for image_id, _, _ in chunk):
            return chunk, [pool.submit(read, item) for _, _, item in chunk]
    return None
