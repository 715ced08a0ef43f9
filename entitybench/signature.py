"""Signatures: the line that says exactly how a number was computed.

The *metric part* must be equal wherever two numbers stand in one column; the *prediction part*
may differ and is printed as a footnote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from entitybench.errors import FormatError

METRIC_VERSION = 1
"""Raised by every change that moves a score."""

_HASH_DIGITS = 8
_METRIC = "APe"
_RESOLVED = "resolved-in-"
_PLAIN = re.compile(r"[^|\s]+")
_PREDICTION_NEEDS = {"scores", "overlap"}
_PREDICTION_MAY = {"thresholded", "classes", "class-threshold"}
_METRIC_MAY = {"boundary", "size", "subset"}
# field → key in the text, in the order of the text; an empty value is left out
_METRIC_KEYS = {
    "metric_version": "metric",
    "ground_truth": "gt",
    "num_images": "images",
    "protocol": "protocol",
    "void": "void",
    "iou": "iou",
    "max_detections": "dets",
    "boundary": "boundary",
    "size": "size",
    "subset": "subset",
}


@dataclass(frozen=True, slots=True)
class MetricSignature:
    """The metric part.

    Attributes:
        ground_truth: `name@hash`, hash being the first 8 digits of the set's content hash; of a
            union `a@hash+b@hash` (see `ground_truth_label`).
        num_images: Images scored.
        protocol: `strict` or `official`.
        void: `counted` or `ignore`.
        size: `annotation` where sizes come from the annotation, else empty.
        subset: Name of the subset of images scored, else empty.
        iou: IoU thresholds, `first:step:last`.
        max_detections: Predictions that count per image.
        metric_version: `METRIC_VERSION` of the code that computed the number.
        boundary: Width of a boundary by the image's diagonal where IoU is the lesser of the
            masks' and their boundaries', else empty.

    >>> print(MetricSignature("coco_entity_val@1f3a9c2e", 5000, "strict"))
    APe|metric:1|gt:coco_entity_val@1f3a9c2e|images:5000|protocol:strict|void:counted|iou:.50:.05:.95|dets:100
    """

    ground_truth: str
    num_images: int
    protocol: str
    void: str = "counted"
    size: str = ""
    subset: str = ""
    iou: str = ".50:.05:.95"
    max_detections: int = 100
    metric_version: int = METRIC_VERSION
    boundary: str = ""

    def __post_init__(self) -> None:
        for name in ("ground_truth", "protocol", "void", "iou"):
            _check_plain(name, getattr(self, name))
        for name in sorted(_METRIC_MAY):
            if getattr(self, name):
                _check_plain(name, getattr(self, name))

    def __str__(self) -> str:
        pairs = ((key, getattr(self, name)) for name, key in _METRIC_KEYS.items())
        return "|".join([_METRIC, *(f"{key}:{value}" for key, value in pairs if value != "")])

    @classmethod
    def parse(cls, text: str) -> MetricSignature:
        """Read what `str` writes.

        Raises:
            FormatError: The text is no metric signature.
        """
        metric, _, rest = text.partition("|")
        values = _pairs(rest, text) if metric == _METRIC else {}
        unknown = set(values) - set(_METRIC_KEYS.values())
        missing = set(_METRIC_KEYS.values()) - _METRIC_MAY - set(values)
        if unknown or missing:
            raise _malformed(text)
        signature = cls(
            values["gt"],
            _count(values["images"], text),
            values["protocol"],
            values["void"],
            values.get("size", ""),
            values.get("subset", ""),
            values["iou"],
            _count(values["dets"], text),
            _count(values["metric"], text),
            values.get("boundary", ""),
        )
        return _same(signature, text)

    def differences(self, other: MetricSignature) -> list[str]:
        """Name the parts that differ, by their key in the text; empty if comparable."""
        return [
            key for name, key in _METRIC_KEYS.items() if getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True, slots=True)
class PredictionSignature:
    """The prediction part.

    Attributes:
        score_rule: Where scores come from; `model` if the model gives them.
        resolved_images: Images whose overlap was resolved before scoring.
        thresholded: Least score that was kept, or None if none was dropped.
        classes: Of a PQ by class: how many the truth has, `@`, and eight digits of a digest of
            its labels (no content hash covers them); else empty.
        class_threshold: Least score that counts there.

    >>> print(PredictionSignature(resolved_images=12, thresholded=0.5))
    scores:model|overlap:resolved-in-12|thresholded:0.5
    """

    score_rule: str = "model"
    resolved_images: int = 0
    thresholded: float | None = None
    classes: str = ""
    class_threshold: float = 0.0

    def __post_init__(self) -> None:
        _check_plain("score_rule", self.score_rule)
        if self.classes:
            _check_plain("classes", self.classes)

    def __str__(self) -> str:
        overlap = f"{_RESOLVED}{self.resolved_images}" if self.resolved_images else "none"
        parts = [f"scores:{self.score_rule}", f"overlap:{overlap}"]
        if self.thresholded is not None:
            parts.append(f"thresholded:{float(self.thresholded)!r}")
        if self.classes:
            parts.append(f"classes:{self.classes}")
        if self.class_threshold:
            parts.append(f"class-threshold:{float(self.class_threshold)!r}")
        return "|".join(parts)

    @classmethod
    def parse(cls, text: str) -> PredictionSignature:
        """Read what `str` writes.

        Raises:
            FormatError: The text is no prediction signature.
        """
        values = _pairs(text, text)
        if not _PREDICTION_NEEDS <= set(values) <= _PREDICTION_NEEDS | _PREDICTION_MAY:
            raise _malformed(text)
        overlap = values["overlap"]
        resolved = 0 if overlap == "none" else _count(overlap.removeprefix(_RESOLVED), text)
        least = values.get("thresholded")
        try:
            signature = cls(
                values["scores"],
                resolved,
                None if least is None else float(least),
                values.get("classes", ""),
                float(values.get("class-threshold", 0)),
            )
        except ValueError as error:
            raise _malformed(text) from error
        return _same(signature, text)


_Signature = TypeVar("_Signature", MetricSignature, PredictionSignature)


def ground_truth_label(sets: dict[str, str]) -> str:
    """Name one ground truth, or a union in order of name, with its hashes.

    Args:
        sets: Name → content hash (hexadecimal, at least 8 digits).

    Raises:
        FormatError: A hash is too short or not hexadecimal, or there is no set.

    >>> ground_truth_label({"b": "00112233aa", "a": "ffeeddccbb"})
    'a@ffeeddcc+b@00112233'
    """
    for name, digest in sets.items():
        if not re.fullmatch(rf"[0-9a-f]{{{_HASH_DIGITS},}}", digest):
            msg = f"content hash {digest!r} of `{name}` is not hexadecimal"
            raise FormatError(msg)
    if not sets:
        msg = "a signature names a ground truth"
        raise FormatError(msg)
    return "+".join(f"{name}@{sets[name][:_HASH_DIGITS]}" for name in sorted(sets))


def _check_plain(name: str, value: str) -> None:
    if not _PLAIN.fullmatch(value):
        msg = f"{name} {value!r} cannot stand in a signature"
        raise FormatError(msg, hint="a name there has no space and no `|`")


def _pairs(text: str, whole: str) -> dict[str, str]:
    parts = [part.partition(":") for part in text.split("|")]
    values = {key: value for key, _, value in parts}
    if len(values) < len(parts) or not all(values.values()):
        raise _malformed(whole)
    return values


def _count(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise _malformed(whole)
    return int(text)


def _same(signature: _Signature, text: str) -> _Signature:
    """Refuse a text that is not the one way to write the signature."""
    if str(signature) != text:
        raise _malformed(text)
    return signature


def _malformed(text: str) -> FormatError:
    msg = f"not a signature: {text!r}"
    return FormatError(msg)
