"""Tests of the statistics and the tables of jaxstyle.evaluation."""

import csv
import io
import itertools
import json
import math

import numpy as np
import pytest

from jaxstyle.errors import UserError
from jaxstyle.evaluation import tables
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.evaluation.statistics import Interval, bootstrap, paired

SSIM = Column("ssim", "SSIM", better="high")
TIME = Column("seconds", "time", unit="s", better="low", digits=1)


def _half(interval):
    return (interval.high - interval.low) / 2


# --- intervals -----------------------------------------------------------------------------------


def test_the_ends_are_those_of_all_resamples_written_out():
    values = [0.0, 1.0, 10.0]
    means = sorted(sum(drawn) / 3 for drawn in itertools.product(values, repeat=3))
    assert means[1] == pytest.approx(1 / 3)  # 1 of 27 is below the 5th percentile, 4 are not
    found = bootstrap(values, level=0.9, resamples=20_000)
    np.testing.assert_allclose(found, [11 / 3, means[1], means[-2]])


def test_many_values_have_the_interval_of_a_normal_mean():
    x = np.random.default_rng(1).exponential(size=400)
    found = bootstrap(x, resamples=8000)
    error = x.std(ddof=1) / math.sqrt(x.size)
    assert found.mean == pytest.approx(x.mean())
    np.testing.assert_allclose(found[1:], x.mean() + error * np.array([-1.96, 1.96]), rtol=0.02)
    assert _half(bootstrap(x, level=0.5, resamples=8000)) == pytest.approx(0.674 * error, rel=0.08)


def test_ninety_five_of_a_hundred_intervals_hold_the_mean():
    generator = np.random.default_rng(2)
    found = [bootstrap(generator.normal(size=40), resamples=400, seed=i) for i in range(300)]
    assert 0.9 < np.mean([part.low <= 0 <= part.high for part in found]) < 0.98


def test_symmetric_values_have_a_symmetric_interval():
    x = np.random.default_rng(3).normal(size=50)
    found = bootstrap(np.concatenate([x, -x]), resamples=20_000)
    assert found.mean == pytest.approx(0, abs=1e-12)
    assert found.low == pytest.approx(-found.high, rel=0.04)


def test_equal_values_are_their_interval_to_the_bit():
    assert bootstrap([0.1] * 7) == Interval(0.1, 0.1, 0.1)
    x = np.random.default_rng(4).normal(size=9)
    assert paired(x, x) == Interval(0, 0, 0)


def test_the_seed_decides():
    x = np.random.default_rng(5).normal(size=20)
    assert bootstrap(x, seed=3) == bootstrap(x, seed=3)
    assert bootstrap(x, seed=3) != bootstrap(x, seed=4)


def test_paintings_as_strata_do_not_widen_the_interval():
    x = np.array([0.0] * 5 + [100.0] * 5)
    assert bootstrap(x, strata=["a"] * 5 + ["b"] * 5) == Interval(50, 50, 50)
    assert _half(bootstrap(x)) > 20
    # The error of the mean out of those of the strata: sum of (n_s / n)^2 variance_s / n_s.
    generator = np.random.default_rng(6)
    parts = [generator.normal(9, 1, 60), generator.normal(-5, 4, 140)]
    error = math.sqrt(sum((part.size / 200) ** 2 * part.var() / part.size for part in parts))
    found = bootstrap(np.concatenate(parts), strata=[1] * 60 + [2] * 140, resamples=8000)
    assert _half(found) == pytest.approx(1.96 * error, rel=0.05)


def test_photographs_as_groups_are_drawn_whole():
    generator = np.random.default_rng(7)
    x = generator.normal(size=(50, 1)) + np.arange(4) + 0.1 * generator.normal(size=(50, 4))
    strata, groups = np.tile(np.arange(4), 50), np.repeat(np.arange(50), 4)
    error = x.mean(1).std() / math.sqrt(50)
    found = bootstrap(x.ravel(), strata=strata, groups=groups, resamples=8000)
    assert _half(found) == pytest.approx(1.96 * error, rel=0.05)
    # Each on its own they seem to be four times as many.
    alone = bootstrap(x.ravel(), strata=strata, resamples=8000)
    assert _half(alone) == pytest.approx(_half(found) / 2, rel=0.1)


def test_groups_keep_to_their_strata():
    x = np.random.default_rng(8).normal(size=12) + np.repeat([0, 50], 6)
    strata = np.repeat(["a", "b"], 6)
    apart = bootstrap(x, strata=strata, groups=range(12))
    assert apart == bootstrap(x, strata=strata)
    # A photograph that is alone with its paintings has nobody to be drawn for.
    pooled = bootstrap(x, strata=[*strata[:-1], "c"], groups=range(12))
    assert pooled == bootstrap(x)
    assert _half(pooled) > 10 * _half(apart)


@pytest.mark.parametrize(
    "options",
    [
        {"values": [3.0]},
        {"values": [1.0, 5.0], "strata": ["a", "b"]},
        {"values": [1.0, 5.0], "groups": ["a", "a"]},
        {"values": [1.0, 5.0], "groups": ["a", "a"], "strata": ["a", "b"]},
    ],
)
def test_where_nothing_varies_the_ends_are_nan(options):
    found = bootstrap(**options)
    assert found.mean == 3
    assert np.isnan(found[1:]).all()


def test_values_that_are_not_finite_have_no_interval():
    np.testing.assert_equal(bootstrap([]), Interval(np.nan, np.nan, np.nan))
    np.testing.assert_equal(bootstrap([1, np.inf]), Interval(np.inf, np.nan, np.nan))
    np.testing.assert_equal(bootstrap([1, np.nan, 2]), Interval(np.nan, np.nan, np.nan))
    np.testing.assert_equal(bootstrap([-np.inf, np.inf]), Interval(np.nan, np.nan, np.nan))
    np.testing.assert_equal(paired([np.inf, 1], [np.inf, 1]), Interval(np.nan, np.nan, np.nan))


def test_a_paired_difference_leaves_out_what_both_share():
    generator = np.random.default_rng(9)
    shared = generator.normal(0, 10, 30)
    x, y = shared + generator.normal(1, 0.1, 30), shared + generator.normal(0, 0.1, 30)
    found = paired(x, y)
    assert found == bootstrap(x - y)
    assert 0.9 < found.low < found.mean < found.high < 1.1
    assert _half(bootstrap(x)) > 30 * _half(found)
    assert paired(y, x).mean == pytest.approx(-found.mean)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([[1.0]]), r"values: expected shape \[n\], got \[1, 1\]"),
        (lambda: bootstrap([1.0], strata=[1, 2]), "strata: expected a label for each of 1 values"),
        (lambda: bootstrap([1.0], groups=[]), "groups: expected a label for each of 1 values"),
        (lambda: bootstrap([1.0], resamples=0), "at least one resample"),
        (lambda: bootstrap([1.0], level=95), "level between 0 and 1, got 2000 and 95"),
        (lambda: paired([1.0], [1.0, 2.0]), "as many values as in the baseline, got 1 and 2"),
        (lambda: paired([1.0], 2.0), "baseline: expected shape"),
    ],
)
def test_wrong_arguments_of_statistics(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- out of records ------------------------------------------------------------------------------


def _records(method, values, **others):
    """Records of values `{style: [of photograph 0, of photograph 1, ...]}`."""
    return [
        {"method": method, "style": style, "content": f"{number}.jpg", "ssim": value} | others
        for style, row in values.items()
        for number, value in enumerate(row)
    ]


def _overall(records, methods, columns=(SSIM,), **options):
    return tables.overall(records, columns, methods=methods, name="all", title="All", **options)


FEW = (
    "In brackets: the 95% interval of the mean by bootstrap over the photographs; it is about new "
    "photographs in these paintings, not about new paintings. Those of fewer than 10 photographs "
    "are too narrow."
)


def test_overall_has_means_with_intervals_over_photographs():
    generator = np.random.default_rng(10)
    x = generator.normal(size=(60, 1)) + [[0, 7]] + 0.01 * generator.normal(size=(60, 2))
    records = _records("a", {"wave": x[:, 0], "udnie": x[:, 1]}, seconds=2.0)
    table = _overall([*records, *_records("hidden", {"wave": [5]})], ["a"], [SSIM, TIME])
    cell = table.rows["a"]["ssim"]
    error = 1.96 * x.mean(1).std() / math.sqrt(60)
    assert cell.value == pytest.approx(x.mean())
    assert cell.low == pytest.approx(x.mean() - error, abs=error / 10)
    assert cell.high == pytest.approx(x.mean() + error, abs=error / 10)
    assert table.rows["a"]["seconds"] == Cell(2.0, 2.0, 2.0)
    assert table.rows["a"][tables.PAIRS] == Cell(120)
    assert [column.title for column in table.columns] == ["SSIM", "time", "pairs"]
    assert table.notes == (FEW.partition(" Those")[0],)


def test_the_order_of_records_changes_nothing():
    values = np.random.default_rng(11).normal(size=(2, 5))
    records = _records("a", {"wave": values[0], "udnie": values[1]})
    assert _overall(records, ["a"]) == _overall(records[::-1], ["a"])
    assert _overall(records, ["a"], seed=1) != _overall(records, ["a"])


def test_methods_of_fewer_pairs_are_named():
    records = [
        *_records("a", {"wave": [1, 2, 3], "udnie": [4, 5, 6]}),
        *_records("b", {"wave": [1, 2]}),
    ]
    table = _overall(records, ["a", "b", "c"], notes=["Mine."])
    assert [table.rows[method]["pairs"].value for method in "abc"] == [6, 2, 0]
    assert table.rows["c"]["ssim"] == Cell(None)
    fewer = "Judged on fewer pairs, so that their means cannot be compared with those of others: "
    assert table.notes == ("Mine.", FEW, f"{fewer}b (2 of 6), c (0 of 6).")


def test_common_pairs_are_those_that_all_have():
    records = [
        *_records("a", {"wave": [1, 2, 30], "udnie": [4, 5, 6]}, seconds=3.0),
        *_records("b", {"wave": [5, 7], "udnie": [9]}),
    ]
    table = _overall(records, ["a", "b", "c"], [SSIM, TIME], common=True)
    assert table.rows["a"]["ssim"].value == pytest.approx((1 + 2 + 4) / 3)
    assert table.rows["b"]["ssim"].value == 7
    assert table.rows["a"]["seconds"].value == 3  # which b has no value of
    assert [table.rows[method]["pairs"].value for method in "abc"] == [3, 3, 0]
    assert table.notes == (FEW, "Means are over the 3 pairs that the methods have in common.")


def test_common_pairs_of_a_metric_are_those_where_all_have_a_value():
    records = [*_records("a", {"wave": [1, 2, 3]}), *_records("b", {"wave": [5, math.nan, 7]})]
    apart, table = (_overall(records, ["a", "b"], common=common) for common in (False, True))
    assert apart.rows["a"]["ssim"].value == 2
    assert apart.rows["b"]["ssim"].value == 6
    assert apart.notes[-1] == "SSIM is over fewer pairs: b (2 of 3)."
    assert table.rows["b"]["ssim"].value == 6
    assert table.notes[-1] == "SSIM is over fewer pairs: a (2 of 3), b (2 of 3)."


def test_methods_without_a_pair_in_common_have_no_means():
    records = [*_records("a", {"wave": [1, 2]}), *_records("b", {"udnie": [1, 2]})]
    table = _overall(records, ["a", "b"], common=True)
    empty = {"ssim": Cell(None), "pairs": Cell(0)}
    assert table.rows == {"a": empty, "b": empty}
    assert table.notes == ("Means are over the 0 pairs that the methods have in common.",)
    assert _overall([], ["a"]).rows == {"a": empty}


def test_brackets_of_few_photographs_are_said_to_be_narrow():
    records = [*_records("a", {"wave": range(10)}), *_records("b", {"wave": [1, 2]})]
    (note, _) = _overall(records, ["a", "b"]).notes
    assert note.endswith(" Those of fewer than 10 photographs are too narrow: b (2).")
    assert len(_overall(_records("a", {"wave": [1]}), ["a"]).notes) == 0  # there are no brackets


def _by_style(records, methods, **options):
    options = {"baseline": "photo", "name": "styles", "title": "SSIM"} | options
    return tables.by_style(records, SSIM, methods=methods, **options)


def test_by_style_brackets_the_difference_to_the_baseline():
    generator = np.random.default_rng(12)
    photo, gain = generator.normal(0, 10, (2, 40)), generator.normal(1, 0.5, (2, 40))
    records = [
        *_records("photo", dict(zip(["wave", "udnie"], photo, strict=True))),
        *_records("a", dict(zip(["wave", "udnie"], photo + gain, strict=True))),
    ]
    table = _by_style(records, ["photo", "a"])
    assert table.title == "SSIM (in brackets: 95% interval of the difference to photo)"
    assert [column.heading for column in table.columns] == [
        "wave ↑",
        "udnie ↑",
        "all paintings ↑",
    ]
    assert table.rows["photo"]["wave"] == Cell(pytest.approx(photo[0].mean()))
    for key, part in (("wave", gain[:1]), ("udnie", gain[1:]), (tables.ALL, gain)):
        cell, error = table.rows["a"][key], 1.96 * part.mean(0).std() / math.sqrt(40)
        assert cell.low == pytest.approx(part.mean() - error, abs=error / 8)
        assert cell.high == pytest.approx(part.mean() + error, abs=error / 8)
    assert table.rows["a"]["udnie"].value == pytest.approx((photo + gain)[1].mean())
    assert "difference, of the same photograph in the same painting," in table.notes[0]
    value, interval = table.rows["a"]["wave"].text(table.columns[0])
    assert not value.startswith("+")
    assert interval.startswith("[+0.")


def test_by_style_pairs_what_both_have():
    records = [
        *_records("photo", {"wave": [1, 2]}),
        *_records("a", {"wave": [11, 12, 100]}),
        *_records("b", {"udnie": [3, 4]}),
    ]
    table = _by_style(records, ["a", "b"])
    assert table.rows["a"]["wave"] == Cell(41, 10, 10)
    assert table.rows["a"]["udnie"] == Cell(None)
    assert table.rows["b"]["udnie"] == Cell(3.5)  # nothing to compare with
    assert table.notes[1].endswith("those of others: a (3 of 5), b (2 of 5).")
    differences = "Differences are over the fewer pairs that photo has, too"
    assert table.notes[2] == f"{differences}: a (2 of 3), b (0 of 2)."
    assert [column.key for column in _by_style(records[:5], ["a"]).columns] == ["wave"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"method": "a", "style": "wave"}], "expected a record with a content"),
        (_records("a", {"wave": [1]}) * 2, "one record a pair, got two of a for 0.jpg in wave"),
        (_records("a", {"wave": ["good"]}), "ssim: expected a number, got 'good'"),
    ],
)
def test_wrong_records(records, message):
    with pytest.raises(ValueError, match=message):
        _overall(records, ["a"])
    with pytest.raises(ValueError, match=message):
        _by_style(records, ["a"])


# --- files ---------------------------------------------------------------------------------------

TABLE = Table(
    "metrics",
    "A title",
    (SSIM, TIME, Column("gain", "gain", difference=True, digits=2), Column("note", "note")),
    {
        "a|b": {"ssim": Cell(0.12345, 0.11, 0.1396), "seconds": Cell(12, None, None)},
        "c,\nd": {
            "ssim": Cell(math.inf),
            "gain": Cell(-0.001, -0.004, 2),
            "note": Cell('from "here"'),
        },
        "e": {"ssim": Cell(np.float64(np.nan), math.nan, 1.0), "note": Cell("–")},
    },
    ("First note.", "Second note."),
)


def test_markdown():
    assert tables.to_markdown(TABLE) == (
        "# A title\n"
        "\n"
        "| method | SSIM ↑ | time (s) ↓ | gain | note |\n"
        "| --- | ---: | ---: | ---: | --- |\n"
        "| a\\|b | 0.123 [0.110, 0.140] | 12.0 | – | – |\n"
        '| c, d | ∞ | – | 0.00 [+0.00, +2.00] | from "here" |\n'
        "| e | – | – | – | – |\n"
        "\n"
        "First note.\n"
        "\n"
        "Second note.\n"
    )


def test_csv_has_values_and_ends_in_columns_of_their_own():
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(TABLE))))
    gain = ["gain", "gain_difference_low", "gain_difference_high"]
    head = ["method", "ssim", "ssim_low", "ssim_high", "seconds", *gain, "note"]
    assert list(lines[0]) == head
    assert list(lines[0].values()) == ["a|b", "0.12345", "0.11", "0.1396", "12", *[""] * 4]
    assert lines[1]["method"] == "c,\nd"
    assert float(lines[1]["ssim"]) == math.inf
    assert [float(lines[1][key]) for key in gain] == [-0.001, -0.004, 2]
    assert lines[1]["note"] == 'from "here"'
    assert (lines[2]["ssim"], lines[2]["ssim_low"]) == ("", "")


def test_remarks_stand_beside_numbers():
    rows = {"a": {"x": Cell(1.5, remark="guessed")}, "b": {"x": Cell(2.0)}}
    found = Table("t", "T", (Column("x", "X"),), rows)
    assert "| a | 1.500 (guessed) |" in tables.to_markdown(found)
    assert tables.to_csv(found) == "method,x,x_remark\na,1.5,guessed\nb,2.0,\n"
    assert tables.from_json(tables.to_json(found)) == found


def test_json_comes_back():
    text = tables.to_json(TABLE)
    found = json.loads(text)
    assert found["rows"]["a|b"]["ssim"] == {
        "value": 0.12345,
        "low": 0.11,
        "high": 0.1396,
        "remark": "",
    }
    assert tables.from_json(text) == TABLE
    assert list(tables.from_json(text).rows) == list(TABLE.rows)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": {}, "columns": [{}], "notes": []}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="expected a table as to_json writes it"):
        tables.from_json(text)


def test_write_makes_three_files(tmp_path):
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        tables.write(TABLE, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.csv",
        "metrics.json",
        "metrics.md",
    ]
    assert (folder / "metrics.md").read_text(encoding="utf-8") == tables.to_markdown(TABLE)
    assert tables.from_json((folder / "metrics.json").read_text(encoding="utf-8")) == TABLE
    with pytest.raises(UserError, match=r"metrics\.md: cannot be written: .*another folder"):
        tables.write(TABLE, folder / "metrics.csv")


def test_cells_hold_plain_numbers():
    cell = Cell(np.float32(0.5), np.float64(0.25), np.inf)
    assert (cell, type(cell.value), type(cell.low)) == (Cell(0.5, 0.25, None), float, float)
    assert type(Cell(np.int64(3)).value) is int
    assert (Cell(-math.inf).value, Cell(-math.inf).number, Cell(2).number) == ("-∞", None, 2)
    assert Cell(-0.0001).text(SSIM) == ("0.000", "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Table("../x", "", (), {}), "name: expected small letters"),
        (lambda: Table("x", "", (SSIM, SSIM), {}), "expected each key once, got ssim, ssim"),
        (lambda: Table("x", "", (SSIM,), {"a": {"b": Cell()}}), "no columns have the keys b"),
        (lambda: TABLE.column("b"), "metrics: there is no column 'b'"),
        (lambda: Column("a", "a", better="more"), 'expected better to be "high"'),
        (lambda: Column("a", "a", digits=-1), "digits of 0 or more, got '' and -1"),
    ],
)
def test_wrong_tables(call, message):
    with pytest.raises(ValueError, match=message):
        call()
