from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitybench.errors import FormatError
from entitybench.signature import (
    METRIC_VERSION,
    MetricSignature,
    PredictionSignature,
    ground_truth_label,
)

COCO = (
    "APe|metric:1|gt:coco_entity_val@1f3a9c2e|images:5000|protocol:strict|void:counted"
    "|iou:.50:.05:.95|dets:100"
)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz_+@:.-0123456789", min_size=1)


def test_the_metric_part_as_documented() -> None:
    assert str(MetricSignature("coco_entity_val@1f3a9c2e", 5000, "strict")) == COCO
    assert METRIC_VERSION == 1


def test_size_and_subset_are_told_when_they_apply() -> None:
    signature = MetricSignature("a@0", 7, "strict", size="annotation", subset="night@1234abcd")
    assert str(signature).endswith("|dets:100|size:annotation|subset:night@1234abcd")
    assert MetricSignature.parse(str(signature)) == signature


@given(
    st.builds(
        MetricSignature,
        ground_truth=WORDS,
        num_images=st.integers(0, 10**9),
        protocol=WORDS,
        void=WORDS,
        size=st.just("") | WORDS,
        subset=st.just("") | WORDS,
        iou=WORDS,
        max_detections=st.integers(0, 10**6),
        metric_version=st.integers(0, 99),
    )
)
def test_the_metric_part_round_trips(signature: MetricSignature) -> None:
    assert MetricSignature.parse(str(signature)) == signature


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (PredictionSignature(), "scores:model|overlap:none"),
        (PredictionSignature(resolved_images=12), "scores:model|overlap:resolved-in-12"),
        (
            PredictionSignature("area", thresholded=0.5),
            "scores:area|overlap:none|thresholded:0.5",
        ),
    ],
)
def test_the_prediction_part_as_documented(signature: PredictionSignature, text: str) -> None:
    assert str(signature) == text
    assert PredictionSignature.parse(text) == signature


@given(
    st.builds(
        PredictionSignature,
        score_rule=WORDS,
        resolved_images=st.integers(0, 10**6),
        thresholded=st.none() | st.floats(0, 1),
    )
)
def test_the_prediction_part_round_trips(signature: PredictionSignature) -> None:
    assert PredictionSignature.parse(str(signature)) == signature


@pytest.mark.parametrize(
    "text",
    [
        "",
        "APe",
        "AP|" + COCO[4:],
        COCO.replace("images:5000", "images:many"),
        COCO.replace("images:5000", "images:05000"),
        COCO.replace("|dets:100", ""),
        COCO.replace("|dets:100", "|dets:"),
        COCO + "|dets:100",
        COCO + "|colour:red",
        COCO + "|",
        COCO + " ",
        COCO.replace("metric:1|gt", "gt").replace("|images", "|metric:1|images"),
    ],
)
def test_another_text_is_no_metric_signature(text: str) -> None:
    with pytest.raises(FormatError, match="signature"):
        MetricSignature.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scores:model",
        "overlap:none|scores:model",
        "scores:model|overlap:some",
        "scores:model|overlap:resolved-in-0",
        "scores:model|overlap:resolved-in-x",
        "scores:model|overlap:none|thresholded:half",
        "scores:model|overlap:none|thresholded:0.50",
    ],
)
def test_another_text_is_no_prediction_signature(text: str) -> None:
    with pytest.raises(FormatError, match="not a signature"):
        PredictionSignature.parse(text)


@pytest.mark.parametrize("name", ["two words", "a|b", "", "a\nb"])
def test_names_that_would_break_the_line_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="cannot stand in a signature"):
        MetricSignature(name, 1, "strict")
    with pytest.raises(FormatError, match="cannot stand in a signature"):
        PredictionSignature(name)


def test_differences_are_named_as_in_the_text() -> None:
    one = MetricSignature("a@0", 5, "strict")
    assert one.differences(one) == []
    other = MetricSignature("b@0", 5, "official", max_detections=300)
    assert one.differences(other) == ["gt", "protocol", "dets"]


def test_ground_truths_are_named_with_eight_digits_of_their_hash() -> None:
    digest = "1f3a9c2e" + 56 * "0"
    assert ground_truth_label({"coco_entity_val": digest}) == "coco_entity_val@1f3a9c2e"
    union = {"b": digest, "a": 64 * "f"}
    assert ground_truth_label(union) == "a@ffffffff+b@1f3a9c2e"


@pytest.mark.parametrize("digest", ["", "1f3a9c2", "sha256:1f3a9c2e"])
def test_a_hash_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(FormatError, match="not hexadecimal"):
        ground_truth_label({"a": digest})


def test_no_ground_truth_is_refused() -> None:
    with pytest.raises(FormatError, match="names a ground truth"):
        ground_truth_label({})
