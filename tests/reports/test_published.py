import math

import pytest

from entitybench.errors import FormatError, UnknownNameError
from entitybench.plan import load_plan
from entitybench.reports.published import PublishedCell, published, read_published

# numbers printed in each table of the paper; dashes do not count
CELLS = {
    "1": 54, "2a": 4, "2b": 4, "2c": 4, "2d": 4, "3": 2, "4": 2, "5": 4, "6": 4,
    "7a": 27, "7b": 9, "7c": 6, "8": 15, "9": 3, "10": 3,
}  # fmt: skip


def cell(table_id: str, row: str, column: str, group: str = "") -> PublishedCell:
    table = published().table(table_id)
    (found,) = (
        c
        for c in table.cells()
        if " / ".join(table.rows[c.row].labels) == row
        and table.columns[c.column].label == column
        and table.columns[c.column].group == group
    )
    return found


def test_every_table_has_as_many_numbers_as_printed() -> None:
    counted = {table.id: sum(1 for _ in table.cells()) for table in published().tables}
    assert counted == CELLS


@pytest.mark.parametrize(
    ("table", "row", "column", "group", "value"),
    [
        ("1", "things / specific / specific", "AP^b_L", "", 50.5),
        ("1", "stuff / agnostic / agnostic", "AP^b_S", "", 1.4),
        ("1", "entity / agnostic / agnostic", "AP^b_50", "", 62.5),
        ("2a", "no / yes", "AP_e^m", "", 29.1),
        ("2b", "yes / yes", "AP_e^m", "", 29.0),
        ("2c", "5–7", "AP_e^m", "", 29.1),
        ("2d", "R-101-DCNv2 / 36", "AP_e^m", "", 35.5),
        ("3", "all paths", "AP_e^m", "", 30.0),
        ("4", "class-agnostic CondInst (baseline)", "AP_e^m", "", 30.4),
        ("5", "no / yes", "AP_e^m", "", 29.5),
        ("6", "6–7", "AP_e^m", "", 29.6),
        ("7a", "COCO", "PanopticFCN specific", "ADE20K", 15.4),
        ("7a", "ADE20K", "ours", "COCO", 20.1),
        ("7a", "CO+A", "PanopticFCN agnostic", "CO+A", 26.6),
        ("7b", "ADE20K", "DETR agnostic", "COCO", 18.9),
        ("7c", "Swin-L", "ADE20K", "", 37.0),
        ("8", "KNet", "S-A AP_e^m", "", 28.2),
        ("8", "Ours", "A-A AP_e^m", "", 31.8),
        ("9", "ours / class-agnostic", "SQ", "", 79.9),
        ("10", "nine points of the region", "AP_e^m", "", 40.2),
    ],
)  # fmt: skip
def test_spot_values(table: str, row: str, column: str, group: str, value: float) -> None:
    assert cell(table, row, column, group).value == value


def test_a_column_of_table_7_is_a_training_set_and_a_row_a_test_set() -> None:
    found = cell("7a", "ADE20K", "ours", "COCO")
    assert (found.trained_on, found.tested_on) == (("coco_entity_train",), ("ade20k_entity_val",))
    assert found.source == "Table 7(a), row ADE20K, column COCO / ours"
    joint = cell("7c", "Swin-T", "COCO")
    assert len(joint.trained_on) == 2
    assert joint.tested_on == ("coco_entity_val",)


def test_doubts_stand_where_the_reference_doubts() -> None:
    assert any("box AP" in doubt for doubt in cell("7a", "ADE20K", "ours", "COCO").doubts)
    assert not any("box AP" in doubt for doubt in cell("7a", "ADE20K", "ours", "ADE20K").doubts)
    assert cell("7a", "COCO", "PanopticFCN agnostic", "COCO").doubts == ()
    assert all(c.doubts for c in published().table("10").cells())
    assert not any(c.doubts for c in published().table("2a").cells())
    assert cell("8", "KNet", "S-A AP_e^m").doubts
    assert not cell("8", "MaskFormer", "S-A AP_e^m").doubts


def test_what_has_no_counterpart_compares_with_nothing() -> None:
    assert cell("1", "things / specific / specific", "AP^b").method is None


def test_columns_with_classes_are_of_models_with_classes() -> None:
    pq = cell("8", "MaskFormer", "S-S PQ")
    assert (pq.metric, pq.method) == ("PQc", "maskformer-specific")
    assert cell("8", "MaskFormer", "S-A AP_e^m").method == "maskformer-specific"
    assert cell("8", "MaskFormer", "A-A AP_e^m").method == "maskformer"


def test_table_8_knows_the_rows_of_its_plan() -> None:
    """Each of the plan's models is kin to a method of Table 8, but for those the paper lacks."""
    known = {name for found in published().table("8").cells() for name in kin_of(found)}
    rows = {method.name for method in load_plan("worlds-table8").methods}
    absent = {"mask2former_tiny", "mask2former_tiny_specific", "tiny_specific", "panopticfpn_tiny"}
    seconds = {"panopticfcn_tiny_specific_together", "tiny_specific_together"}
    assert rows - known == absent | seconds


def kin_of(found: PublishedCell) -> tuple[str, ...]:
    assert found.method is not None
    return published().names(found.method)[1]


def test_every_method_and_set_is_known() -> None:
    tables = published()
    for found in tables.cells():
        assert found.method is None or found.method in tables.methods or found.metric is None
        assert {*found.trained_on, *found.tested_on} <= set(tables.sets)
        assert 0 < found.value < 100


def test_tables_are_found_as_people_write_them() -> None:
    assert published().table("7(A)").id == "7a"
    with pytest.raises(UnknownNameError, match="7a"):
        published().table("7d")


def test_a_row_that_does_not_fit_is_refused() -> None:
    text = """
        format = "entitybench-published/1"
        paper = "p"
        authors = "a"
        url = "u"
        sets = {}
        methods = {}
        [[tables]]
        id = "1"
        title = "t"
        row_names = ["r"]
        columns = [{ label = "c" }]
        rows = [{ labels = ["x"], values = [1.0, 2.0] }]
    """
    with pytest.raises(FormatError, match="row x does not fit"):
        read_published(text)
    assert math.isnan(published().table("8").rows[0].values[2])
