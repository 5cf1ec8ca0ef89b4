"""Tests of what judges and of what paints in jaxstyle.evaluation, with tiny networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_params, random_weights, save_lpips
from sklearn import metrics as reference

from jaxstyle import images, lpips, models, weights
from jaxstyle.errors import UserError
from jaxstyle.evaluation import judges, painters, pictures
from jaxstyle.evaluation.config import EvaluateConfig, MethodConfig, quick
from jaxstyle.evaluation.pictures import Pair
from jaxstyle.methods import adain, residual
from jaxstyle.training.config import override

pytestmark = pytest.mark.usefixtures("quick_compiler")

SIDE = 32
STYLES = ("leaf", "sand")
SHORT = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 1.0}}
SHORT |= {"scales": 1, "steps": 2}


def picture(seed, side=SIDE):
    return images.resize(np.random.default_rng(seed).random((6, 6, 3), np.float32), (side, side))


def residual_model(styles, *, seed=0, **settings):
    config = residual.Config(channels=(3, 4), blocks=0, **settings)
    generator = residual.make_generator(config, len(styles))
    example = jnp.zeros((1, 16, 16, 3)), jnp.ones((1, len(styles)))
    return models.Model("residual", config, styles, filled(generator.init, *example, seed=seed))


def adain_model():
    config = adain.Config(levels=("relu2_1", "relu3_1"), encoder_padding="reflect")
    encoder = random_params(((4, 4), (6, 6), (8,)))
    network = adain.make_network(config, encoder, "reflect")

    def init(key):
        features = adain.encode(network, encoder, jnp.zeros((1, 16, 16, 3)))
        return network.decoder.init(key, features, adain.code_of(features))["params"]

    variables = {"params": filled(init), "encoder": models.nested(encoder)}
    return models.Model("adain", config, (), variables)


def filled(init, *example, seed=0):
    """Random variables of a network, which need no compiler."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0), *example)
    return jax.tree.map(lambda x: random.normal(0, 0.3, x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models and of a network."""
    folder = tmp_path_factory.mktemp("files")
    models.save(folder / "two.safetensors", residual_model(STYLES))
    models.save(folder / "one_leaf.safetensors", residual_model(("0",), seed=1))
    models.save(folder / "any.safetensors", adain_model())
    weights.save(folder / "net.safetensors", random_weights())
    return folder


@pytest.fixture(scope="module")
def judge(files):
    return judges.Judge(str(files / "net.safetensors"))


@pytest.fixture(scope="module")
def paintings():
    return {name: picture(seed) for seed, name in enumerate(STYLES, 10)}


# --- structure -----------------------------------------------------------------------------------


def blocks(count, side=12):
    """Regions: stripes from left to right."""
    return np.broadcast_to(np.arange(side) * count // side, (side, side)).copy()


def features_of(labels, *, noise, channels=5, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(labels.max() + 1, channels))
    spread = noise * random.normal(size=(*labels.shape, channels))
    return jnp.asarray((centers[labels] + spread)[None], jnp.float32)


def found_regions(made, photo, labels):
    """The regions of a picture, in float64."""
    made, photo = (np.asarray(x, np.float64)[0] for x in (made, photo))
    made, photo = ((x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5) for x in (made, photo))
    prototypes = [photo[labels == number].mean(0) for number in range(labels.max() + 1)]
    distances = [np.linalg.norm(made - prototype, axis=2) for prototype in prototypes]
    return np.argmin(distances, axis=0)


def expected_figures(true, found):
    options = {"average": "macro", "zero_division": 0}
    return {
        "miou": reference.jaccard_score(true, found, **options),
        "accuracy": reference.accuracy_score(true, found),
        "precision": reference.precision_score(true, found, **options),
        "recall": reference.recall_score(true, found, **options),
        "f1": reference.f1_score(true, found, **options),
    }


def test_regions_that_are_there_are_found():
    labels = blocks(3)
    x = features_of(labels, noise=0.01)
    figures, confusion = judges.structure(x, x, labels), judges.confusion(x, x, labels)
    assert figures == dict.fromkeys(("miou", "accuracy", "precision", "recall", "f1"), 1.0)
    np.testing.assert_array_equal(confusion, 48 * np.eye(3))


def test_a_style_that_is_the_same_everywhere_changes_nothing():
    labels, random = blocks(4), np.random.default_rng(3)
    photo = features_of(labels, noise=0.6)
    made = photo + 0.3 * random.normal(size=photo.shape)
    before = judges.confusion(made, photo, labels)
    scale, shift = random.uniform(0.5, 20, 5), random.normal(0, 9, 5)
    after = judges.confusion(made * scale + shift, photo, labels)
    assert 0 < np.trace(before) < labels.size
    np.testing.assert_array_equal(before, after)


def test_figures_of_structure_agree_with_the_formula_written_out():
    labels, random = blocks(4), np.random.default_rng(4)
    photo = features_of(labels, noise=0.8)
    made = photo + 0.8 * random.normal(size=photo.shape)
    figures = judges.structure(made, photo, labels)
    expected = expected_figures(labels.ravel(), found_regions(made, photo, labels).ravel())
    assert 0.1 < expected["miou"] < 0.9
    assert figures == pytest.approx(expected, abs=1e-6)


def test_where_all_is_shuffled_regions_are_found_by_chance():
    labels = blocks(2, side=60)
    photo = features_of(labels, noise=0.1)
    flat = np.random.default_rng(5).permutation(np.asarray(photo).reshape(-1, 5))
    figures = judges.structure(jnp.asarray(flat.reshape(photo.shape)), photo, labels)
    assert figures["accuracy"] == pytest.approx(1 / 2, abs=0.03)
    assert figures["miou"] == pytest.approx(1 / 3, abs=0.03)


def test_positions_of_no_region_do_not_count():
    labels, random = blocks(3), np.random.default_rng(6)
    photo = features_of(labels, noise=0.8)
    made = photo + 0.8 * random.normal(size=photo.shape)
    labels[random.random(labels.shape) < 0.3] = -1
    figures, confusion = (f(made, photo, labels) for f in (judges.structure, judges.confusion))
    known = labels >= 0
    assert confusion.sum() == known.sum() < labels.size
    found = found_regions(made, photo, labels)
    assert figures == pytest.approx(expected_figures(labels[known], found[known]), abs=1e-6)
    nothing = made, photo, np.full_like(labels, -1)
    figures, confusion = judges.structure(*nothing), judges.confusion(*nothing)
    assert confusion.sum() == 0
    assert np.isnan(list(figures.values())).all()


def test_a_segmentation_is_taken_to_the_size_of_features():
    segments = np.full((40, 40), 900)
    segments[:, :16] = 7  # 1.6 positions of 10 pixels: the majority counts
    segments[36:, 36:] = 30  # not the majority anywhere
    expected = np.ones((4, 4), int)
    expected[:, :2] = 0
    # Numbers are those of the regions that are left, without gaps.
    np.testing.assert_array_equal(judges.segmentation_regions(segments, (4, 4)), expected)
    segments[segments == 30] = 900
    np.testing.assert_array_equal(judges.segmentation_regions(segments, (4, 4)), expected)


def test_regions_that_are_too_small_are_none():
    segments = np.repeat([[5, 9]], 20, axis=0).repeat(10, axis=1)
    segments[0, :3] = 1  # of 400 positions less, and then no less, than a hundredth
    expected = np.where(segments == 9, 1, 0)
    expected[0, :3] = -1
    np.testing.assert_array_equal(judges.segmentation_regions(segments, (20, 20)), expected)
    segments[0, 3] = 1
    found = judges.segmentation_regions(segments, (20, 20))
    assert found[0, :5].tolist() == [0, 0, 0, 0, 1]


def test_segments_may_be_many():
    segments = np.arange(900).reshape(30, 30)
    segments[15:] = 899
    found = judges.segmentation_regions(segments, (30, 30))
    assert (found[15:] == 0).all()
    assert (found[:15] == -1).all()


def test_clusters_are_regions_where_nobody_has_drawn_any():
    labels = blocks(3)
    x = features_of(labels, noise=0.05)
    found = judges.clustered_regions(x, 3, seed=0)
    assert found.shape == labels.shape
    # The same regions by other numbers.
    pairs = set(zip(labels.ravel().tolist(), found.ravel().tolist(), strict=True))
    assert len(pairs) == 3
    assert {number for _, number in pairs} == {0, 1, 2}
    np.testing.assert_array_equal(found, judges.clustered_regions(x, 3, seed=0))
    assert judges.structure(x, x, found)["miou"] == 1


def test_a_flat_photograph_is_one_region():
    found = judges.clustered_regions(jnp.ones((1, 6, 6, 4)), 3, seed=0)
    np.testing.assert_array_equal(found, np.zeros((6, 6)))


# --- composition ---------------------------------------------------------------------------------


def test_the_composition_of_the_painting_itself_is_one():
    random = np.random.default_rng(0)
    # Clusters that are none: k-means is not done when it ends.
    x = jnp.asarray(random.normal(size=(1, 60, 60, 6)), jnp.float32)
    painting = judges.compose(x, 12, seed=0)
    np.testing.assert_allclose(painting.shares.sum(1), 1)
    assert judges.composition(x, painting) == 1
    other = jnp.asarray(random.gamma(1.0, size=(1, 60, 60, 6)), jnp.float32)
    assert judges.composition(other, painting) < 0.8
    # Where the positions lie does not matter.
    assert judges.composition(x[:, ::-1], painting) == 1


def test_clusters_are_those_of_standardised_features():
    labels = blocks(3)
    x = features_of(labels, noise=0.05)
    stretched = x * jnp.array([1, 1e3, 1e-1, 1, 1]) + 7
    for features in (x, stretched):
        painting = judges.compose(features, 3, seed=1)
        np.testing.assert_allclose(painting.shares, 1 / 3)
        assert painting.centers.shape[1:] == (3, 5)


def test_composition_is_equation_12():
    centers = np.eye(4)
    shares = np.array([0.5, 0.25, 0.25, 0.0])
    mean, std = np.full(4, 2.0), np.full(4, 3.0)
    painting = judges.Composition(mean, std, centers[None], shares[None])
    counts = [4, 8, 4, 0]
    rows = np.repeat(centers, counts, axis=0) * 3 + 2
    found = judges.composition(jnp.asarray(rows.reshape(1, 4, 4, 4)), painting)
    # p_ii / (sum_j p_ij + sum_j p_ji - p_ii), with shares as the two sums.
    own = np.array(counts) / 16
    both = np.minimum(own, shares)
    ratios = [p / (a + b - p) for p, a, b in zip(both, own, shares, strict=True) if a + b > 0]
    assert len(ratios) == 3
    assert found == pytest.approx(np.mean(ratios)) == pytest.approx((0.5 + 0.5 + 1) / 3)
    # Several beginnings: the mean of what each of them says.
    reversed_ = np.array([0.0, 0.25, 0.5, 0.25])
    beginnings = np.stack([centers, centers[::-1]]), np.stack([shares, reversed_])
    painting = judges.Composition(mean, std, *beginnings)
    twice = judges.composition(jnp.asarray(rows.reshape(1, 4, 4, 4)), painting)
    assert twice == pytest.approx((found + (1 + 1 + 1) / 3) / 2)


def test_a_flat_painting_has_one_cluster():
    x = jnp.ones((1, 6, 6, 4))
    painting = judges.compose(x, 3, seed=0)
    assert all(sorted(shares) == [0, 0, 1] for shares in painting.shares)
    assert judges.composition(x, painting) == 1


# --- recognition ---------------------------------------------------------------------------------


def test_a_painting_is_nearest_to_itself(judge, paintings):
    recognizer = judges.Recognizer(judge, paintings)
    assert recognizer.names == STYLES
    for number, painting in enumerate(paintings.values()):
        scores = recognizer.scores(judge.features(painting))
        assert scores.shape == (2,)
        assert np.argmax(scores) == number
        assert scores[number] == pytest.approx(0, abs=1e-6)


def test_scores_are_distances_of_gram_matrices(judge, paintings):
    made = judge.features(picture(30))
    expected = np.zeros(2)
    for layer in judges.LAYERS:
        grams = []
        for features in (made, *(judge.features(x) for x in paintings.values())):
            flat = np.asarray(features[layer], np.float64).reshape(-1, features[layer].shape[-1])
            grams.append(flat.T @ flat / len(flat))
        own, *others = grams
        size = np.mean([np.sum(gram**2) for gram in others])
        expected -= [np.sum((own - gram) ** 2) / size / len(judges.LAYERS) for gram in others]
    scores = judges.Recognizer(judge, paintings).scores(made)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_figures_of_recognition_agree_with_scikit_learn():
    random = np.random.default_rng(1)
    labels = random.permutation(np.repeat(np.arange(4), [12, 9, 7, 5]))
    scores = random.normal(size=(labels.size, 4)) + 1.2 * np.eye(4)[labels]
    expected = expected_figures(labels, scores.argmax(1))
    del expected["miou"]
    areas = [reference.roc_auc_score(labels == k, scores[:, k]) for k in range(4)]
    expected["auc"] = np.mean(areas)
    assert 0.3 < expected["accuracy"] < expected["auc"] < 0.95
    assert judges.recognition(labels, scores) == pytest.approx(expected, abs=1e-5)


def test_of_one_painting_there_is_no_auc():
    found = judges.recognition(np.zeros(3, int), np.array([[1.0, 0], [0, 1], [2, 0]]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert np.isnan(found["auc"])


# --- the judge -----------------------------------------------------------------------------------


def test_a_picture_is_at_no_distance_from_itself(judge):
    made, other = judge.features(picture(1)), judge.features(picture(2))
    assert list(made) == list(judges.LAYERS)
    assert made["relu3_1"].shape == (1, 8, 8, 8)
    own, another = judges.references(made), judges.references(other)
    same = judges.distances(made, made, own)
    assert set(same) == {"content_distance", "perceptual", "gram", "moments", "wasserstein"}
    assert same == pytest.approx(dict.fromkeys(same, 0.0), abs=1e-4)
    assert judges.distances(made, made, another)["content_distance"] == 0
    assert judges.distances(made, made, another)["gram"] > 0.01
    assert judges.distances(made, other, own)["gram"] == pytest.approx(0, abs=1e-6)
    assert judges.distances(made, other, own)["content_distance"] > 0.01


def test_likeness_needs_no_features():
    one, other = picture(1), picture(2)
    found = judges.likeness(one, one, other)
    assert set(found) == {"ssim", "psnr", "colors", "tv"}  # too small for several scales
    assert (found["ssim"], found["psnr"]) == (pytest.approx(1), np.inf)
    assert found["colors"] > 0 < found["tv"]
    assert judges.likeness(one, other, one)["colors"] == 0
    large = picture(1, 176)
    assert judges.likeness(large, large, other)["ms_ssim"] == pytest.approx(1)


def test_the_fingerprint_is_that_of_the_networks(files, judge, tmp_path):
    net = random_weights()
    assert judges.Judge(str(files / "net.safetensors")).fingerprint == judge.fingerprint
    fingerprints = {judge.fingerprint}
    weights.save(tmp_path / "padding.safetensors", net._replace(padding="zero"))
    weights.save(tmp_path / "other.safetensors", random_weights(seed=1))
    for name in ("padding", "other"):
        fingerprints.add(judges.Judge(str(tmp_path / f"{name}.safetensors")).fingerprint)
    fingerprints.add(judges.Judge(str(files / "net.safetensors"), ("relu1_1",)).fingerprint)
    assert len(fingerprints) == 4


def test_lpips_is_a_figure_where_its_files_are_given(files, judge, tmp_path):
    net, both = str(files / "net.safetensors"), save_lpips(tmp_path)
    assert judge.lpips_features(picture(2)) == {} == judge.lpips(picture(1), {})
    given = judges.Judge(net, lpips_files=", ".join(str(file) for file in both))
    assert given.fingerprint != judge.fingerprint
    wanted = lpips.distance(lpips.load(*both), picture(1)[None], picture(2)[None])
    one, other = (given.lpips_features(picture(seed)) for seed in (1, 2))
    assert given.lpips(picture(1), other) == {"lpips": pytest.approx(float(wanted[0]))}
    assert given.lpips(picture(1), one) == {"lpips": 0}
    with pytest.raises(UserError, match="lpips is two files with a comma"):
        judges.Judge(net, lpips_files=str(both[0]))


def test_a_judge_without_a_layer_is_refused(files):
    with pytest.raises(UserError, match="relu6_1"):
        judges.Judge(str(files / "net.safetensors"), ("relu6_1",))


# --- pictures ------------------------------------------------------------------------------------


def test_pictures_are_cut_to_squares(tmp_path):
    pixels = np.zeros((40, 100, 3), np.float32)
    pixels[:, 30:70] = 1  # the square in the middle
    images.save(tmp_path / "b.png", pixels)
    images.save(tmp_path / "a.jpg", pixels)
    found = pictures.read(str(tmp_path), 32)
    assert list(found) == ["a", "b"]
    assert all(square.shape == (32, 32, 3) for square in found.values())
    assert found["b"].min() > 0.99
    assert list(pictures.read(str(tmp_path), 32, limit=1)) == ["a"]
    with pytest.raises(UserError, match="no such folder"):
        pictures.read(str(tmp_path / "none"), 32)


def test_pictures_of_one_stem_are_refused(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        images.save(tmp_path / name, np.ones((8, 8, 3), np.float32))
    with pytest.raises(UserError, match=r"a\.png and a\.jpg would be one row"):
        pictures.read(str(tmp_path), 8)


def test_segments_are_told_by_their_colours(tmp_path):
    pixels = np.zeros((8, 12, 3), np.float32)
    pixels[:, 2:6] = (1, 0, 0)
    pixels[:, 6:10] = (0, 0, 1)
    images.save(tmp_path / "a.png", pixels)
    labels = pictures.square_labels(tmp_path / "a.png", like=tmp_path / "a.png")
    assert labels.shape == (8, 8)
    assert len(np.unique(labels)) == 2
    assert (labels == labels[0]).all()
    assert labels[0, 3] != labels[0, 4]


def test_segments_are_those_of_the_picture(tmp_path):
    for name, shape in (
        ("a", (8, 12)),
        ("double", (16, 24)),
        ("odd", (17, 24)),
        ("other", (12, 8)),
    ):
        images.save(tmp_path / f"{name}.png", np.zeros((*shape, 3), np.float32))
    for name in ("double", "odd"):
        pictures.square_labels(tmp_path / f"{name}.png", like=tmp_path / "a.png")
    with pytest.raises(UserError, match=r"other.png is 8 x 12 and .*a.png 12 x 8: expected a seg"):
        pictures.square_labels(tmp_path / "other.png", like=tmp_path / "a.png")


def test_regions_are_the_best_of_several_beginnings():
    places = np.repeat(np.random.default_rng(1).permutation(9), 16).reshape(12, 12)
    x = features_of(places, noise=0.02, channels=2)
    for seed in range(5):
        found = judges.clustered_regions(x, 9, seed=seed)
        assert len({(a, b) for a, b in zip(places.ravel(), found.ravel(), strict=True)}) == 9


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a\\b", ""])
def test_names_of_rows_are_names_of_files(name):
    with pytest.raises(ValueError, match=r"methods: .* names files, too"):
        EvaluateConfig(methods={"photo": MethodConfig(), name: MethodConfig()})


@pytest.mark.parametrize("changes", [{"speed_sizes": ()}, {"speed_sizes": (0,)}, {"protocols": ()}])
def test_settings_without_anything_to_do_are_refused(changes):
    with pytest.raises(ValueError, match=r"speed_sizes must be|protocols are missing"):
        EvaluateConfig(**changes)


def test_pictures_are_painted_once(tmp_path):
    asked, told = [], []

    def paint(photo, style):
        asked.append(style)
        return photo / 2

    painter = painters.Painter(paint, ("leaf",), "x", "")
    photos = {"a": picture(1), "b": picture(2)}
    pairs = [Pair(photo, style) for photo in photos for style in STYLES]
    for _ in range(2):
        found = list(
            pictures.paint(painter, tmp_path, photos, pairs, done=lambda *now: told.append(now))
        )
        assert [pair for pair, _ in found] == [("a", "leaf"), ("b", "leaf")]
        np.testing.assert_allclose(found[1][1], photos["b"] / 2, atol=0.51 / 255)
    assert asked == ["leaf", "leaf"]
    assert told == [(1, 2), (2, 2)] * 2


# --- painters ------------------------------------------------------------------------------------


def made(kind, files, paintings, name="", **settings):
    model = str(files / name) if name else ""
    return painters.make("row", MethodConfig(kind=kind, model=model, **settings), paintings)


def gatys(files, paintings, **settings):
    chosen = {"features": str(files / "net.safetensors"), "settings": SHORT} | settings
    return made("gatys", files, paintings, **chosen)


def test_the_bounds_are_the_photograph_and_the_painting(files, paintings):
    photo = picture(1)
    bounds = {kind: made(kind, files, paintings) for kind in ("photo", "painting")}
    np.testing.assert_array_equal(bounds["photo"].paint(photo, "leaf"), photo)
    for style in STYLES:
        np.testing.assert_array_equal(bounds["painting"].paint(photo, style), paintings[style])
    assert all(painter.styles == STYLES for painter in bounds.values())
    assert all(painter.batch is None for painter in bounds.values())


def test_networks_paint_pictures_of_the_photographs_size(files, paintings):
    photo = picture(1)
    for kind, name in (("residual", "two.safetensors"), ("adain", "any.safetensors")):
        painter = made(kind, files, paintings, name)
        assert (painter.styles, painter.updates) == (STYLES, 0)
        assert name in painter.facts
        assert str(files) not in painter.facts
        one, other = (painter.paint(photo, style) for style in STYLES)
        assert one.shape == photo.shape
        assert 0 <= one.min() < one.max() <= 1
        assert np.abs(one - other).max() > 0.01
        assert painter.batch is not None
        several = painter.batch(np.stack([photo, picture(2)]), "sand")
        assert several.shape == (2, SIDE, SIDE, 3)
        np.testing.assert_allclose(several[0], other, atol=1e-4)


def test_the_weights_are_those_of_the_painting(files, paintings):
    model, photo = residual_model(STYLES), picture(1)
    # Paintings in another order, and one that the network does not know.
    known = {"sand": paintings["sand"], "new": picture(9), "leaf": paintings["leaf"]}
    painter = made("residual", files, known, "two.safetensors")
    assert painter.styles == ("sand", "leaf")
    expected = residual.paint(model, photo, style_weights=[0, 1])
    np.testing.assert_allclose(painter.paint(photo, "sand"), expected, atol=1e-6)


def test_there_may_be_a_model_for_each_painting(files, paintings):
    painter = made("residual", files, paintings, "one_{style}.safetensors")
    assert painter.styles == ("leaf",)
    photo = picture(1)
    expected = residual.paint(residual_model(("0",), seed=1), photo)
    np.testing.assert_allclose(painter.paint(photo, "leaf"), expected, atol=1e-6)
    np.testing.assert_allclose(painter.batch(photo[None], "leaf")[0], expected, atol=1e-5)
    with pytest.raises(UserError, match="none of the styles sand"):
        made("residual", files, {"sand": picture(2)}, "one_{style}.safetensors")


def test_a_model_for_each_painting_is_of_one_style(files, paintings, tmp_path):
    models.save(tmp_path / "leaf.safetensors", residual_model(STYLES))
    with pytest.raises(UserError, match="has 2 styles: expected one"):
        made("residual", tmp_path, paintings, "{style}.safetensors")


def test_pixels_are_optimised(files, paintings):
    painter, photo = gatys(files, paintings), picture(1)
    assert (painter.styles, painter.updates, painter.batch) == (STYLES, 2, None)
    assert "2 updates" in painter.facts
    assert str(files) not in painter.facts
    found = painter.paint(photo, "leaf")
    assert found.shape == photo.shape
    assert np.abs(found - photo).max() > 1e-3


def test_narrow_networks_are_compared_at_their_heads(paintings):
    own = MethodConfig(kind="gatys", features="lite", preset="gatys2016")  # of relu4_2
    head = dataclasses.replace(own, settings={"content_layers": {"relu4_1": 1.0}})
    found = [painters.make("row", config, paintings).fingerprint for config in (own, head)]
    assert found[0] == found[1]


def test_fingerprints_are_of_all_that_pictures_depend_on(files, paintings, tmp_path):
    found = [
        made("photo", files, paintings),
        made("painting", files, paintings),
        made("painting", files, {"leaf": paintings["leaf"], "sand": picture(50)}),
        made("residual", files, paintings, "two.safetensors"),
        made("adain", files, paintings, "any.safetensors"),
        gatys(files, paintings),
        gatys(files, paintings, settings=SHORT | {"steps": 3}),
        gatys(files, paintings, preset="jin2021"),
    ]
    changed = {
        "seed": residual_model(STYLES, seed=3),
        "names": residual_model(STYLES[::-1]),
        "settings": residual_model(STYLES, padding="zero"),
    }
    for name, model in changed.items():
        models.save(tmp_path / f"{name}.safetensors", model)
        found.append(made("residual", tmp_path, paintings, f"{name}.safetensors"))
    for name, net in (
        ("net", random_weights(seed=1)),
        ("padding", random_weights()._replace(padding="zero")),
    ):
        weights.save(tmp_path / f"{name}.safetensors", net)
        found.append(gatys(files, paintings, features=str(tmp_path / f"{name}.safetensors")))
    fingerprints = [painter.fingerprint for painter in found]
    assert len(set(fingerprints)) == len(fingerprints) == 13
    again = [made("residual", files, paintings, "two.safetensors"), gatys(files, paintings)]
    assert [painter.fingerprint for painter in again] == [fingerprints[3], fingerprints[5]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "residual", "name": "any.safetensors"}, "model of adain: expected .* residual"),
        ({"kind": "adain", "name": "two.safetensors"}, "model of residual: expected .* adain"),
        ({"kind": "residual", "name": "none.safetensors"}, "cannot read"),
        ({"kind": "residual", "name": "none_{style}.safetensors"}, "none of the styles leaf, sand"),
        ({"kind": "residual", "name": "net.safetensors"}, "no model of a trained method"),
    ],
)
def test_models_that_do_not_fit_are_refused(files, paintings, settings, message):
    with pytest.raises(UserError, match=message):
        made(files=files, paintings=paintings, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "defualt"}, "row: .*default"),
        ({"settings": {"stepz": 2}}, "row: .*did you mean steps"),
        ({"settings": SHORT | {"steps": 0}}, "row: .*steps"),
        ({"settings": SHORT | {"style_layers": {"relu9_1": 1.0}}}, "row: .*relu9_1"),
        ({"features": "none.safetensors"}, "none.safetensors"),
    ],
)
def test_settings_that_do_not_fit_are_refused(files, paintings, settings, message):
    with pytest.raises(UserError, match=message):
        gatys(files, paintings, **settings)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "nobody"}, "baseline 'nobody' is not among the methods"),
        ({"protocols": ("distances", "taste")}, "no protocol 'taste'"),
        ({"size": 8}, "size"),
        ({"clusters": 1}, "clusters"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(methods={"photo": MethodConfig()}, **settings)
    with pytest.raises(ValueError, match="kind"):
        MethodConfig(kind="sketch")


def test_a_quick_evaluation_is_small():
    methods = {
        "photo": MethodConfig(),
        "few": MethodConfig(kind="gatys", photos=1, settings={"seed": 3}),
        "many": MethodConfig(kind="residual", photos=9, model="x"),
    }
    config = quick(EvaluateConfig(methods=methods, title="All", throughput=0))
    assert (config.title, config.size, config.throughput) == ("All", 64, 0)
    assert [method.photos for method in config.methods.values()] == [2, 1, 2]
    assert config.methods["few"].settings == {"seed": 3, "steps": 2, "scales": 1}
    assert config.methods["many"].model == "x"
    assert (config.paintings, config.speed_cold) == (3, False)
    assert quick(EvaluateConfig(size=40, paintings=2)).size == 40
    assert quick(EvaluateConfig(size=40, paintings=2)).paintings == 2


def test_parts_of_methods_can_be_set():
    config = EvaluateConfig(methods={"photo": MethodConfig(), "cnn": MethodConfig(kind="residual")})
    found = override(config, ["methods.cnn.model=runs/cnn_{style}", "methods.cnn.photos=3"])
    assert (found.methods["cnn"].model, found.methods["cnn"].photos) == ("runs/cnn_{style}", 3)
    with pytest.raises(UserError, match="did you mean"):
        override(config, ["methods.cn.model=x"])
