"""Tests of jaxstyle.evaluation.survey: in Python, and the page in a browser where there is one."""

import base64
import colorsys
import copy
import hashlib
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxstyle.errors import UserError
from jaxstyle.evaluation import survey, tables
from jaxstyle.evaluation.survey import Rating, Ratings, Trial

METHODS = ("quagga", "okapi")
TRIALS = ("wombat", "numbat")
SCALES = ("completeness", "fluency", "coherence")


def flat(hue):
    """A picture of one colour, which JPEG keeps."""
    return np.full((24, 32, 3), colorsys.hsv_to_rgb(hue, 0.8, 0.9), np.float32)


COLORS = {
    (method, trial): flat(0.1 + 0.2 * (2 * i + j))
    for i, method in enumerate(METHODS)
    for j, trial in enumerate(TRIALS)
}


def make_trials():
    photo, noise = flat(0), np.random.default_rng(0).random((30, 20, 3), np.float32)
    return [
        Trial(photo, noise, {method: COLORS[method, trial] for method in METHODS}, trial)
        for trial in TRIALS
    ]


@pytest.fixture
def folder(tmp_path):
    survey.write_page(tmp_path, make_trials(), title="Stripes & <spots>", seed=3)
    return tmp_path


def key_of(folder):
    return json.loads((folder / "key.json").read_text())


def data_of(folder):
    text = (folder / "survey.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="survey">(.*?)</script>', text)[1])


def jpeg(uri):
    head, body = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return base64.b64decode(body, validate=True)


def pixels_of(content):
    return np.asarray(Image.open(io.BytesIO(content)), np.float32) / 255


# --- the page ------------------------------------------------------------------------------------


def test_the_page_tells_no_method_and_no_trial(folder):
    page = (folder / "survey.html").read_text(encoding="utf-8")
    files = [jpeg(uri) for uri in data_of(folder)["images"].values()]
    assert len(files) == 6  # four to rate; one photo and one painting, once each
    for content in [page.encode(), *files]:
        for name in METHODS + TRIALS:
            assert name.encode() not in content.lower()
            assert base64.b64encode(name.encode())[:-4] not in content
    for content in files:  # no comment, no EXIF
        assert not {b"\xff\xfe", b"\xff\xe1"} & {content[i : i + 2] for i in range(600)}
    assert not re.search(r"https?:|//[a-z]", page)  # nor is anything fetched


def test_the_key_tells_which_picture_is_whose(folder):
    key, data = key_of(folder), data_of(folder)
    assert key["title"] == "Stripes & <spots>"
    assert (key["scales"], key["range"], key["seed"]) == (list(SCALES), [0, 10], 3)
    assert data["id"] == key["survey"]
    found = {}
    for trial in data["trials"]:
        codes = [picture["code"] for picture in trial["pictures"]]
        assert codes == sorted(codes)
        assert np.ptp(pixels_of(jpeg(data["images"][trial["content"]])), axis=(0, 1)).max() < 0.02
        assert pixels_of(jpeg(data["images"][trial["painting"]])).shape == (30, 20, 3)
        for picture in trial["pictures"]:
            entry, content = (
                key["pictures"][picture["code"]],
                jpeg(data["images"][picture["image"]]),
            )
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
            found[entry["method"], entry["trial"]] = pixels_of(content)
    for pair, pixels in COLORS.items():
        np.testing.assert_allclose(found.pop(pair), pixels, atol=0.03)
    assert not found
    pairs = [(entry["method"], entry["trial"]) for entry in key["pictures"].values()]
    assert pairs == [(method, trial) for trial in TRIALS for method in METHODS]


def test_the_seed_draws_the_codes(folder, tmp_path):
    again = survey.write_page(tmp_path / "again", make_trials(), title="Stripes & <spots>", seed=3)
    assert again == tmp_path / "again" / "survey.html"
    assert again.read_bytes() == (folder / "survey.html").read_bytes()
    survey.write_page(tmp_path / "other", make_trials(), title="Stripes & <spots>", seed=4)
    assert not key_of(folder)["pictures"].keys() & key_of(tmp_path / "other")["pictures"].keys()


def test_other_pictures_are_another_survey(folder):
    before = key_of(folder)
    trials = make_trials()
    trials[1] = Trial(
        trials[1].content, trials[1].style, dict.fromkeys(METHODS, flat(0.95)), TRIALS[1]
    )
    survey.write_page(folder, trials, title="Stripes & <spots>", seed=3, overwrite=True)
    after = key_of(folder)
    assert list(after["pictures"]) == list(before["pictures"])
    assert after["survey"] != before["survey"]


def test_the_title_is_escaped(folder):
    page = (folder / "survey.html").read_text(encoding="utf-8")
    assert "<title>Stripes &amp; &lt;spots&gt;</title>" in page
    assert "<spots>" not in page
    survey.write_page(folder, make_trials(), title="{{survey}} \\1", overwrite=True)
    page = (folder / "survey.html").read_text(encoding="utf-8")
    assert "<title>{{survey}} \\1</title>" in page


@pytest.mark.parametrize("name", ["survey.html", "key.json"])
def test_nothing_is_replaced_unasked(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=rf"{name} exists.*--overwrite"):
        survey.write_page(tmp_path, make_trials(), title="Survey")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"
    survey.write_page(tmp_path, make_trials(), title="Survey", overwrite=True)
    assert data_of(tmp_path)["id"] == key_of(tmp_path)["survey"]


@pytest.mark.parametrize("title", ["Quagga against the rest", "quagga-2?", "(QUAGGA)"])
def test_a_title_that_names_a_method_is_refused(tmp_path, title):
    with pytest.raises(UserError, match="names the method 'quagga'"):
        survey.write_page(tmp_path, make_trials(), title=title)
    assert not list(tmp_path.iterdir())
    survey.write_page(tmp_path, make_trials(), title="Of quaggas")


@pytest.mark.parametrize(
    ("trials", "title", "message"),
    [
        ([], "Survey", "one or more"),
        ([Trial(flat(0), flat(0), {}, "a")], "Survey", "one or more pictures"),
        ([Trial(flat(0), flat(0), {"m": flat(0)}, "a")] * 2, "Survey", "a name for each"),
        ([Trial(flat(0), flat(0), {"m": flat(0)}, "")], "Survey", "not empty"),
        ([Trial(flat(0), flat(0), {"": flat(0)}, "a")], "Survey", "not empty"),
        ([Trial(flat(0), flat(0), {"m": flat(0)}, "a")], " ", "expected a title"),
        (
            [Trial(flat(0), flat(0), {"m": flat(0)[None]}, "a")],
            "Survey",
            "'a', method 'm': .*shape",
        ),
        (
            [Trial(flat(0) * np.nan, flat(0), {"m": flat(0)}, "a")],
            "Survey",
            "'a', content: .*finite",
        ),
        (
            [Trial(flat(0), flat(0).astype(int), {"m": flat(0)}, "a")],
            "Survey",
            "'a', style: .*float",
        ),
    ],
)
def test_what_cannot_be_rated_is_refused(tmp_path, trials, title, message):
    with pytest.raises(ValueError, match=message):
        survey.write_page(tmp_path / "survey", trials, title=title)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/key\.json"):
        survey.write_page(tmp_path / "file", make_trials(), title="Survey")


# --- answers -------------------------------------------------------------------------------------


def answers_to(folder, rate, *, rater="Ada", started="2024-05-01T10:00:00.000Z"):
    """What the page gives; `rate` says the three ratings of a method and trial, or None."""
    key = key_of(folder)
    ratings = []
    for code, entry in key["pictures"].items():
        values = rate(entry["method"], entry["trial"])
        if values is not None:
            named = dict(zip(SCALES, values, strict=True))
            ratings.append({"picture": code, **named, "seconds": 2.5})
    order = list(key["pictures"])
    head = {"survey": key["survey"], "rater": rater, "started": started, "finished": None}
    return head | {"order": order, "ratings": ratings}


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def test_answers_are_read_with_the_key(folder):
    def rate(method, trial):
        return None if (method, trial) == ("okapi", "numbat") else (METHODS.index(method), 10, 4)

    paths = [
        write_json(folder / "a.json", answers_to(folder, rate)),
        write_json(folder / "b.json", answers_to(folder, rate, rater=" ")),
    ]
    ratings = survey.read_answers(paths, folder / "key.json")
    assert ratings.title == "Stripes & <spots>"
    assert ratings.pictures == tuple((m, t) for t in TRIALS for m in METHODS)
    assert ratings.ratings == tuple(
        Rating(rater, method, trial, METHODS.index(method), 10, 4, 2.5)
        for rater in ("Ada", str(paths[1]))
        for method, trial in [("quagga", "wombat"), ("okapi", "wombat"), ("quagga", "numbat")]
    )


def change(place, value):
    """A change of answers: of their head, or of the second rating."""

    def apply(answers):
        target = answers["ratings"][1] if place in (*SCALES, "picture", "seconds") else answers
        target[place] = value
        return answers

    return apply


def repeat(answers):
    answers["ratings"].append(copy.deepcopy(answers["ratings"][0]))
    return answers


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (change("survey", "0123"), "another survey: expected [0-9a-f]{16}, got 0123"),
        (change("survey", None), "no answers"),
        (change("rater", 7), "no answers"),
        (change("ratings", {}), "no answers"),
        (lambda answers: [answers], "no answers"),
        (lambda answers: answers.pop("started") and answers, "no answers"),
        (lambda answers: answers | {"ratings": [3]}, "picture None that the key"),
        (change("picture", "ffff"), "picture 'ffff' that the key"),
        (change("picture", ["ffff"]), "that the key"),
        (repeat, "twice"),
        (change("fluency", 11), "for fluency a whole number from 0 to 10, got 11"),
        (change("coherence", -1), "for coherence .* got -1"),
        (change("completeness", 7.0), r"for completeness .* got 7\.0"),
        (change("completeness", "7"), 'got "7"'),
        (change("completeness", True), "got true"),
        (change("completeness", None), "got null"),
        (change("seconds", -1), "expected seconds, got -1"),
        (change("seconds", float("nan")), "expected seconds, got NaN"),
        (change("seconds", 10**400), "expected seconds"),
        (change("seconds", None), "expected seconds, got null"),
    ],
)
def test_broken_answers_are_refused_in_a_line(folder, broken, message):
    good = write_json(folder / "good.json", answers_to(folder, lambda *_: (1, 2, 3), rater="Bo"))
    answers = broken(answers_to(folder, lambda *_: (1, 2, 3)))
    bad = write_json(folder / "bad.json", answers)
    with pytest.raises(UserError, match=message) as caught:
        survey.read_answers([good, bad], folder / "key.json")
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\xfa", b"[" * 100_000])
def test_what_is_no_json_is_refused(folder, content):
    path = folder / "answers.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"answers\.json: is not JSON"):
        survey.read_answers([path], folder / "key.json")


def test_missing_files_are_named(folder):
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file"):
        survey.read_answers([folder / "none.json"], folder / "key.json")
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        survey.read_answers([], folder / "none.json")
    with pytest.raises(UserError, match="give the files"):
        survey.read_answers([], folder / "key.json")


def test_a_key_that_is_none_or_was_changed_is_refused(folder):
    answers = answers_to(folder, lambda *_: (1, 2, 3))
    path = write_json(folder / "answers.json", answers)
    with pytest.raises(UserError, match=r"answers\.json: is no key"):
        survey.read_answers([path], path)
    key = key_of(folder)
    next(iter(key["pictures"].values()))["method"] = "zebra"
    with pytest.raises(UserError, match=r"changed\.json: is no key .* or was changed"):
        survey.read_answers([path], write_json(folder / "changed.json", key))


def test_the_same_answers_count_once(folder):
    answers = answers_to(folder, lambda *_: (1, 2, 3))
    later = answers_to(folder, lambda *_: (1, 2, 3), started="2024-05-02T10:00:00.000Z")
    first = write_json(folder / "first.json", answers | {"ratings": answers["ratings"][:1]})
    whole, other = write_json(folder / "whole.json", answers), write_json(folder / "x.json", later)
    with pytest.raises(UserError, match=r"whole\.json: the same rater.*first\.json"):
        survey.read_answers([first, whole], folder / "key.json")
    ratings = survey.read_answers([whole, other], folder / "key.json")
    assert len(ratings.ratings) == 8
    assert survey.tabulate(ratings).rows["okapi"]["raters"].value == 1


# --- the table -----------------------------------------------------------------------------------


def random_ratings(raters, *, seed=0):
    """Raters of very different leniency, of whom some stop early."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(raters):
        level = generator.integers(1, 9)
        for count, (method, trial) in enumerate((m, t) for t in TRIALS * 3 for m in METHODS):
            if count < 4 + 3 * (number % 3):
                values = (level + generator.integers(-1, 3, size=3)).tolist()
                rows.append(Rating(f"rater {number}", method, trial, *values, seconds=1.0))
    pictures = tuple((method, trial) for trial in TRIALS for method in METHODS)
    return Ratings("Animals", pictures, tuple(rows))


def test_the_means_are_those_of_all_ratings():
    ratings = random_ratings(5)
    table = survey.tabulate(ratings, resamples=10)
    assert list(table.rows) == list(METHODS)
    assert [column.key for column in table.columns] == [*SCALES, "overall", "raters", "ratings"]
    for method in METHODS:
        values = np.array([r[3:6] for r in ratings.ratings if r.method == method], float)
        row = table.rows[method]
        for i, scale in enumerate(SCALES):
            np.testing.assert_allclose(row[scale].value, values[:, i].mean(), rtol=1e-12)
        np.testing.assert_allclose(row["overall"].value, values.mean(), rtol=1e-12)
        assert (row["raters"].value, row["ratings"].value) == (5, len(values))


def test_the_intervals_are_those_of_a_bootstrap_over_raters():
    ratings = random_ratings(9)
    table = survey.tabulate(ratings, resamples=3000)
    generator = np.random.default_rng(7)
    for column, scale in ((1, "fluency"), (None, "overall")):
        clusters = {}
        for rating in ratings.ratings:
            if rating.method == "okapi":
                value = np.mean(rating[3:6]) if column is None else rating[3 + column]
                clusters.setdefault(rating.rater, []).append(value)
        clusters = list(clusters.values())
        means = []
        for _ in range(3000):
            drawn = generator.choice(len(clusters), len(clusters))
            means.append(np.mean([value for number in drawn for value in clusters[number]]))
        low, high = np.percentile(means, [2.5, 97.5])
        cell = table.rows["okapi"][scale]
        np.testing.assert_allclose([cell.low, cell.high], [low, high], atol=0.15)
        # Were the ratings drawn one by one, the interval would be far too narrow.
        alone = np.concatenate(clusters)
        single = generator.choice(alone, (3000, alone.size)).mean(1)
        assert np.ptp(np.percentile(single, [2.5, 97.5])) < 0.8 * (high - low)


def test_the_seed_draws_the_raters():
    ratings = random_ratings(6)
    one, two, three = (survey.tabulate(ratings, seed=seed, resamples=50) for seed in (1, 1, 2))
    assert one == two
    assert one.rows["okapi"]["fluency"].value == three.rows["okapi"]["fluency"].value
    assert one.rows["okapi"]["fluency"].low != three.rows["okapi"]["fluency"].low


def test_of_one_rater_there_is_no_interval_and_of_none_no_mean():
    pictures = (("okapi", "wombat"), ("quagga", "wombat"), ("zorse", "wombat"))
    rows = (
        Rating("Ada", "okapi", "wombat", 1, 2, 3, 1.0),
        Rating("Ada", "quagga", "wombat", 5, 5, 5, 1.0),
        Rating("Bo", "quagga", "wombat", 7, 7, 7, 1.0),
    )
    table = survey.tabulate(Ratings("Animals", pictures, rows))
    text = tables.to_markdown(table)
    assert "| okapi | 1.00 | 2.00 | 3.00 | 2.00 | 1 | 1 |" in text
    assert "| quagga | 6.00 [5.00, 7.00] |" in text
    assert "| zorse | – | – | – | – | 0 | 0 |" in text
    assert "by 2 raters" in text
    assert "bootstrap over the raters (2000 resamples)" in text
    assert "Of one rater alone there is no interval." in text
    alone = tables.to_markdown(survey.tabulate(Ratings("Animals", pictures, rows[:1])))
    assert "by 1 rater." in alone
    assert "bootstrap" not in alone
    assert tables.from_json(tables.to_json(table)) == table
    assert tables.to_csv(table).splitlines()[3].startswith("zorse,,,")


def test_trials_have_columns():
    ratings = random_ratings(4)
    for column, scale in enumerate(SCALES):
        table = survey.tabulate_trials(ratings, scale=scale, resamples=20)
        assert table.name == f"survey-{scale}-by-trial"
        assert [column.key for column in table.columns] == list(TRIALS)
        assert list(table.rows) == list(METHODS)
        for method, trial in COLORS:
            own = [r[3 + column] for r in ratings.ratings if r[1:3] == (method, trial)]
            cell = table.rows[method][trial]
            np.testing.assert_allclose(cell.value, np.mean(own), rtol=1e-12)
            assert cell.low <= cell.value <= cell.high
    whole = survey.tabulate_trials(ratings, resamples=20)
    values = [np.mean(r[3:6]) for r in ratings.ratings if r[1:3] == ("okapi", "numbat")]
    np.testing.assert_allclose(whole.rows["okapi"]["numbat"].value, np.mean(values), rtol=1e-12)


def test_a_trial_without_a_method_has_an_empty_cell():
    pictures = (("okapi", "wombat"), ("quagga", "numbat"))
    rows = tuple(Rating("Ada", *pair, 1, 2, 3, 1.0) for pair in pictures)
    text = tables.to_markdown(survey.tabulate_trials(Ratings("Animals", pictures, rows)))
    assert "| okapi | 2.00 | – |" in text
    assert "| quagga | – | 2.00 |" in text


def test_wrong_arguments_of_tables_are_refused():
    ratings = random_ratings(2)
    with pytest.raises(ValueError, match="expected at least one resample"):
        survey.tabulate(ratings, resamples=0)
    with pytest.raises(ValueError, match=r"expected one of .*'fluency'.* got 'speed'"):
        survey.tabulate_trials(ratings, scale="speed")


# --- the page in a browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser found; looked for {', '.join(names)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """Opens the page as a new person, who also watches for errors and for requests."""
    contexts, wrong = [], []

    def open_page(*, script=None, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:")) or wrong.append(request.url)
            ),
        )
        if script:
            page.add_init_script(script)
        page.goto((folder / "survey.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def shown(page):
    """The method and trial of the picture that is shown, by its colour alone."""
    pixels = pixels_of(jpeg(page.locator("#picture").get_attribute("src")))
    return min(COLORS, key=lambda pair: np.abs(pixels - COLORS[pair]).mean())


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def rate(page, values, scales=SCALES):
    for scale, value in zip(scales, values, strict=True):
        name = f"{scale.capitalize()} {value}"
        page.get_by_role("radio", name=name, exact=True).check()


def is_at(page, number):
    page.get_by_role("heading", name=f"Picture {number} of 4", exact=True).wait_for()


def checked(page):
    names = page.locator("input[type=radio]:checked")
    return [(one.get_attribute("name"), int(one.get_attribute("value"))) for one in names.all()]


def download(page):
    with page.expect_download() as waiting:
        button(page, "Download answers").click()
    return waiting.value


OPINION = {pair: (i, 10 - i, 3 * i) for i, pair in enumerate(COLORS)}


def test_a_rater_goes_through_the_page(open_page, folder):
    page = open_page()
    assert page.title() == "Stripes & <spots>"
    assert page.get_by_role("heading", name="Stripes & <spots>").is_visible()
    page.get_by_label("Your name or number (optional)").fill("Ada")
    button(page, "Begin").click()
    order = []
    for number in range(1, 5):
        is_at(page, number)
        assert checked(page) == []  # nothing is chosen beforehand
        order.append(shown(page))
        values = OPINION[order[-1]]
        rate(page, values[:2], SCALES[:2])
        button(page, "Finish" if number == 4 else "Next").click()
        is_at(page, number)  # not without the third
        assert page.get_by_role("alert").inner_text() == "Please rate coherence first."
        if number == 2:  # to the first one again, and to change it
            button(page, "Back").click()
            is_at(page, 1)
            assert checked(page) == list(zip(SCALES, (1, 1, 1), strict=True))
            rate(page, OPINION[order[0]])
            button(page, "Next").click()
            is_at(page, 2)
        if number == 3:
            page.reload()
            is_at(page, 3)
            assert shown(page) == order[-1]
        assert checked(page) == list(zip(SCALES[:2], values[:2], strict=True))
        rate(page, values if number > 1 else (1, 1, 1))
        button(page, "Finish" if number == 4 else "Next").click()
    page.get_by_role("heading", name="Thank you").wait_for()
    page.reload()
    saved = download(page)
    assert re.fullmatch(
        rf"answers-{key_of(folder)['survey']}-\w{{6}}\.json", saved.suggested_filename
    )
    path = folder / saved.suggested_filename
    saved.save_as(path)
    answers = json.loads(path.read_text())
    shown_text = page.get_by_label("Your answers, to copy if the download does not work")
    assert json.loads(shown_text.input_value()) == answers

    assert list(answers) == ["survey", "rater", "started", "finished", "order", "ratings"]
    assert answers["started"] < answers["finished"]
    assert answers["order"] == [rating["picture"] for rating in answers["ratings"]]
    key = key_of(folder)["pictures"]
    assert order == [(key[code]["method"], key[code]["trial"]) for code in answers["order"]]
    assert order[0][1] == order[1][1] != order[2][1] == order[3][1]  # trials stay together
    ratings = survey.read_answers([path], folder / "key.json")
    assert {rating[:6] for rating in ratings.ratings} == {
        ("Ada", *pair, *values) for pair, values in OPINION.items()
    }
    rows = survey.tabulate(ratings).rows
    for method in METHODS:
        expected = np.mean([OPINION[method, trial] for trial in TRIALS], axis=0)
        assert [rows[method][scale].value for scale in SCALES] == expected.tolist()
        assert rows[method]["overall"].low is None


def test_the_keyboard_is_enough_and_time_is_measured(open_page):
    page = open_page()
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.keyboard.press("Tab")
    page.keyboard.type(" Bo ")
    page.keyboard.press("Enter")
    is_at(page, 1)
    page.clock.run_for(2500)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.clock.run_for(60_000)  # looks at something else
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(1500)
    for steps in (0, 3, 10):
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        for _ in range(steps):
            page.keyboard.press("ArrowRight")
    assert checked(page) == list(zip(SCALES, (0, 3, 10), strict=True))
    page.keyboard.press("Enter")
    is_at(page, 2)
    page.clock.run_for(5000)
    button(page, "Back").click()
    page.clock.run_for(1000)  # a second look counts, too
    button(page, "Stop early").click()
    answers = json.loads(page.locator("#answers").input_value())
    assert (answers["rater"], answers["finished"]) == ("Bo", None)
    (rating,) = answers["ratings"]
    assert rating["picture"] == answers["order"][0]
    assert [rating[scale] for scale in SCALES] == [0, 3, 10]
    assert rating["seconds"] == 2.5 + 1.5 + 1


def test_one_can_stop_and_go_on_and_leave_the_page_to_another(open_page, folder):
    page = open_page()
    button(page, "Begin").click()
    rate(page, (1, 2, 3))
    button(page, "Next").click()
    rate(page, (4, 5), SCALES[:2])
    button(page, "Stop early").click()
    assert "You rated 1 of 4 pictures" in page.locator("#done").inner_text()
    path = folder / "half.json"
    saved = download(page)
    saved.save_as(path)
    (rating,) = survey.read_answers([path], folder / "key.json").ratings
    assert rating[3:6] == (1, 2, 3)
    button(page, "Back to the pictures").click()
    is_at(page, 2)
    assert checked(page) == [("completeness", 4), ("fluency", 5)]
    button(page, "Stop early").click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    button(page, "Clear all and begin as another person").click()
    assert page.locator("#end").is_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    button(page, "Clear all and begin as another person").click()
    button(page, "Begin").click()
    is_at(page, 1)
    assert checked(page) == []
    button(page, "Stop early").click()
    assert json.loads(page.locator("#answers").input_value())["ratings"] == []
    assert download(page).suggested_filename != saved.suggested_filename


@pytest.mark.parametrize("denied", ["get() { throw new DOMException('no', 'SecurityError') }", ""])
def test_the_page_works_where_nothing_can_be_kept(open_page, denied):
    full = "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') }"
    script = f"Object.defineProperty(window, 'localStorage', {{ {denied} }})" if denied else full
    page = open_page(script=script)
    assert page.locator("#forgetful").is_visible()
    button(page, "Begin").click()
    for number in range(1, 5):
        is_at(page, number)
        rate(page, (number, 0, 10))
        button(page, "Finish" if number == 4 else "Next").click()
    answers = json.loads(page.locator("#answers").input_value())
    assert [rating["completeness"] for rating in answers["ratings"]] == [1, 2, 3, 4]


def test_what_another_page_left_behind_is_no_matter(open_page, folder):
    key = json.dumps(f"survey-{key_of(folder)['survey']}")
    for left in ("{", "null", '{"order": ["a", "b"], "ratings": {}, "screen": "rating"}'):
        page = open_page(script=f"localStorage.setItem({key}, {json.dumps(left)})")
        button(page, "Begin").click()
        is_at(page, 1)


def test_orders_are_drawn_evenly_and_from_the_systems_generator(open_page):
    page = open_page(script="Math.random = () => { throw new Error('not for this') }")
    drawn = page.evaluate("Array.from({length: 6000}, () => shuffled(['a', 'b', 'c']).join(''))")
    counts = {order: drawn.count(order) for order in set(drawn)}
    assert len(counts) == 6
    assert all(abs(count - 1000) < 160 for count in counts.values())  # 5.5 standard deviations
    orders = page.evaluate("Array.from({length: 200}, () => fresh().order.join(' '))")
    assert len(set(orders)) == 8  # two trials, two pictures each


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (390, "light"), (1280, "dark")])
def test_nothing_is_wider_than_the_screen(open_page, width, scheme):
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme)

    def wide():
        return page.evaluate("document.documentElement.scrollWidth")

    assert wide() <= width
    button(page, "Begin").click()
    button(page, "Next").click()
    assert wide() <= width
    for scale in SCALES:
        group = page.get_by_role("group", name=scale.capitalize(), exact=True)
        assert group.get_by_role("radio").count() == 11
        box = group.get_by_text("10", exact=True).bounding_box()
        assert box["width"] >= 24  # a finger's least (WCAG 2.2, 2.5.8)
        assert box["height"] >= 40
    assert page.get_by_role("img").count() == 3
    button(page, "Stop early").click()
    assert wide() <= width
