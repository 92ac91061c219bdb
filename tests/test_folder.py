"""Folders of images: what is skipped and why, what is converted, which part an image is in, and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import images
import numpy as np
import pytest
import torch
import yaml
from images import picture, save
from PIL import Image

import stemlab
from stemlab.data import contents
from stemlab.data.folder import survey
from stemlab.data.images import BadImage, decode, open_rgb
from stemlab.data.load import forget, load
from stemlab.data.memory import bytes_in_memory
from stemlab.data.split import MemoryPart
from stemlab.data.stream import StreamPart
from stemlab.errors import SpecError, StemlabError
from stemlab.running import load_ablation, load_search
from stemlab.spec import AugmentSpec, DataSpec
from stemlab.train import run_trial

STUDY = """\
name: folders
model:
  stem: {channels: [8, 16, 32], kernels: 3, strides: 2, norm: batch, act: relu}
  body: {dim: 48, depth: 2, heads: 3}
data:
  name: folder:set
  image_size: 32
train: {epochs: 1, warmup_epochs: 0, lr: {choice: [1.0e-3, 2.0e-3]}, augment: {crop: [0.5, 1.0], flip: 0.5}}
search: {tuner: random, trials: 1, objective: {maximize: top1}}
engine: {workers: 0}
"""


def few(root: Path, classes: int = 2, each: int = 6, part: str = "") -> Path:
    """Make a folder of whole images."""
    for label in range(classes):
        for number in range(each):
            save(picture(label, number + 100 * len(part)), root / part / f"class{label}" / str(number))
    return root


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("damaged") / "set"
    return root, images.five_hundred(root)


def test_a_folder_of_500_images_25_of_them_damaged_trains_and_reports_which_were_skipped(damaged, tmp_path):
    root, wrong = damaged
    assert len(wrong) == 25
    (tmp_path / "study.yaml").write_text(STUDY.replace("folder:set", f"folder:{root}"))
    done = stemlab.search(tmp_path / "study.yaml", tmp_path / "out")
    (record,) = done.trials
    assert record.status == "ok", record.error
    assert record.metrics["test_top1"] >= 0.15  # of five classes, behind one epoch
    told = json.loads((tmp_path / "out" / "data.json").read_text())
    assert told["files"] == wrong
    assert told["images"] == 500
    assert told["parts"] == {"train": 285, "validation": 95, "test": 95}
    assert told["converted"] == {"grayscale": 50, "CMYK": 45, "16-bit": 45, "palette": 45, "transparency": 45}
    assert told["ignored"] == {"hidden": 1, "no image by its name": 1}
    page, summary = ((tmp_path / "out" / name).read_text() for name in ("report.html", "summary.md"))
    assert '<h2 id="data">Data</h2>' in page
    assert "25 images are skipped" in page
    for reason in ("empty", "not an image", "truncated", "damaged", "too large"):
        assert f"| skipped | {reason} | 5 |" in summary
    assert done.spec.data["contents"]["train"] == 475


def test_who_watches_is_told_in_a_line(damaged):
    root, _ = damaged
    spec = contents.found(DataSpec(name=f"folder:{root}"))
    said = survey(spec.name).summary(spec)
    assert "25 of 500 images are skipped: " in said
    assert "5 truncated" in said
    assert "45 CMYK" in said


def test_the_second_look_opens_no_image(tmp_path, monkeypatch):
    root = few(tmp_path / "set")
    first = survey(f"folder:{root}")
    monkeypatch.setattr("stemlab.data.folder.look", lambda path: pytest.fail(f"{path} was opened"))
    assert survey(f"folder:{root}").contents == first.contents
    monkeypatch.undo()
    (root / "class0" / "0.png").write_bytes(b"")
    assert survey(f"folder:{root}").skipped == {"class0/0.png": "empty"}


def test_progress_is_told_up_to_the_end(tmp_path):
    told = []
    survey(f"folder:{few(tmp_path / 'set')}", lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)


def test_sixteen_bits_are_scaled_down_and_not_clipped(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    image = open_rgb(tmp_path / "deep.png")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image)[..., 0], grey // 257)
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(BadImage, match="of 32 bits"):
        open_rgb(tmp_path / "float.tif")


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "tiff", "ppm"])
def test_an_image_cut_off_anywhere_is_bad_or_whole(kind):
    whole = images.content(picture(0, 0), kind)
    for end in range(0, len(whole) - 40, max(1, len(whole) // 20)):
        with pytest.raises(BadImage):
            decode(whole[:end])
    assert decode(whole)[0].size == (24, 20)


def test_a_link_to_nowhere_is_unreadable(tmp_path):
    root = few(tmp_path / "set")
    (root / "class0" / "link.png").symlink_to("nowhere.png")
    (root / "class1" / "up").symlink_to(root / "class1")  # which has no end
    found = survey(f"folder:{root}")
    assert found.skipped == {"class0/link.png": "unreadable"}
    assert len(found.names) == 12


# Parts.


def test_each_image_is_in_one_part_and_which_follows_from_the_seed(tmp_path):
    root = few(tmp_path / "set", classes=3, each=10)
    found = survey(f"folder:{root}")
    splits = []
    for seed in (0, 0, 1):
        spec = contents.found(DataSpec(name=f"folder:{root}", split_seed=seed))
        parts = found.parts(spec)
        assert tuple(map(len, parts.values())) == spec.part_sizes == (18, 6, 6)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(30))
        for name, each in (("train", 6), ("validation", 2), ("test", 2)):
            assert np.bincount(found.labels[parts[name]]).tolist() == [each] * 3
        splits.append(parts["test"].tolist())
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize("called", ["validation", "val", "Valid", "test", "TEST"])
def test_a_single_held_out_part_is_what_is_reported(tmp_path, called):
    root = few(few(tmp_path / "set", each=10, part="train"), each=4, part=called)
    spec = contents.found(DataSpec(name=f"folder:{root}"))
    found = survey(spec.name)
    assert spec.part_sizes == (16, 4, 8)
    parts = found.parts(spec)
    assert {found.names[place].split("/")[0] for place in parts["test"]} == {called}
    assert {found.names[place].split("/")[0] for place in [*parts["train"], *parts["validation"]]} == {"train"}


def test_three_parts_are_used_as_they_are_and_what_they_lack_is_told(tmp_path):
    root = tmp_path / "set"
    for part, each in (("train", 5), ("val", 3), ("test", 2)):
        few(root, classes=3, each=each, part=part)
    for gone in (*(root / "val" / "class2").iterdir(), *(root / "test" / "class0").iterdir()):
        gone.unlink()
    save(picture(0, 0), root / "test" / "stranger" / "0")
    (root / "train" / "nothing").mkdir()
    copied = (root / "train" / "class1" / "0.png").read_bytes()
    (root / "test" / "class1" / "0.png").write_bytes(copied)
    spec = contents.found(DataSpec(name=f"folder:{root}"))
    found = survey(spec.name)
    assert found.classes == ("class0", "class1", "class2")
    assert spec.part_sizes == (15, 6, 4)
    assert found.absent() == {"validation": ["class2"], "test": ["class0"]}
    assert found.skipped == {"test/stranger/0.png": "of a class that is not trained"}
    assert found.empty == ("nothing",)
    assert found.shared(spec) == 1
    for words in ("classes that validation lacks: class2", "classes without an image: nothing", "1 images are in two"):
        assert words in found.summary(spec)


def test_an_image_alone_in_its_class_trains(tmp_path):
    root = few(tmp_path / "set", each=10)
    save(picture(2, 0), root / "rare" / "one")
    spec = contents.found(DataSpec(name=f"folder:{root}"))
    found = survey(spec.name)
    assert found.labels[found.parts(spec)["train"]].tolist().count(2) == 1
    assert {*found.labels[found.parts(spec)["test"]]} == {0, 1}


# What is refused.


def bad(tmp_path: Path, prepare) -> str:
    """Return the message that a study gets whose data are what `prepare` makes."""
    prepare(tmp_path / "set")
    (tmp_path / "study.yaml").write_text(STUDY.replace("folder:set", f"folder:{tmp_path / 'set'}"))
    with pytest.raises(SpecError) as error:
        load_search(tmp_path / "study.yaml")
    line = STUDY.splitlines().index("  name: folder:set") + 1
    assert str(error.value).startswith(f"{tmp_path}/study.yaml:{line}: data.name: {tmp_path / 'set'}")
    return str(error.value)


def mostly_bad(root: Path) -> None:
    few(root, each=2)
    for number in range(5):
        (root / "class0" / f"bad{number}.jpg").write_bytes(b"x" * number)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.write_text("x"), "is a file"),
        (lambda root: root.mkdir(), "no images below folders of classes"),
        (lambda root: save(picture(0, 0), root / "0"), "1 outside the folders of classes"),
        (lambda root: few(root, classes=1), r"1 class with images to train on \(class0\); expected a folder for each"),
        (lambda root: few(root, part="val"), "there is val, and nothing to train on"),
        (mostly_bad, "5 of 9 images are bad: 4 not an image, 1 empty"),
        (lambda root: few(few(few(root, part="train"), part="val"), part="valid"), "val and valid are both the valid"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_where_it_is_named(tmp_path, prepare, says):
    assert re.search(says, bad(tmp_path, prepare))


@pytest.mark.parametrize(
    "data",
    [
        {"name": {"choice": ["digits", "folder:set"]}},
        {"name": {"choice": {"a": "digits", "b": "torch/cifar10"}}},
        {"choice": [{"name": "digits"}, {"name": "folder:set"}]},
    ],
)
def test_a_set_on_disk_cannot_be_searched_for(tmp_path, data):
    document = {"name": "x", "model": {}, "data": data}
    with pytest.raises(SpecError, match="a set on disk cannot be one of several"):
        load_search(document)


def test_other_holes_of_the_data_stay_holes(tmp_path):
    root = few(tmp_path / "set", each=20)
    (tmp_path / "study.yaml").write_text(
        STUDY.replace("folder:set", f"folder:{root}\n  validation: {{choice: [0.1, 0.2]}}").split("search:")[0]
        + "ablate: {seeds: [0]}\n"
    )
    plan = load_ablation(tmp_path / "study.yaml")
    assert {cell.data.part_sizes for cell in plan.cells} == {(28, 4, 8), (24, 8, 8)}


# What has changed since.


def study(root: Path) -> dict:
    return yaml.safe_load(STUDY.replace("folder:set", f"folder:{root}"))


def test_a_folder_that_has_changed_is_not_trained_on(tmp_path):
    root = few(tmp_path / "set", each=20)
    made = load_search(study(root)).probe(1).feasible[0].trials[0]
    assert run_trial(made).status == "ok"
    forget()
    save(picture(0, 99), root / "class0" / "another")
    with pytest.raises(StemlabError, match="holds other images here than when the study was made"):
        run_trial(made)
    resolved = study(root)
    resolved["data"]["contents"] = made.data.contents.canonical()
    with pytest.raises(SpecError, match=r"data.name: .* holds other images than when this study was made"):
        load_search(resolved)


def test_what_is_known_of_a_folder_is_the_same_wherever_it_lies(tmp_path):
    one, other = (few(tmp_path / name) for name in ("one", "other"))
    os.utime(other / "class0" / "0.png", (1, 1))
    (other / "class1" / "bad.png").write_bytes(b"")
    assert survey(f"folder:{one}").contents == survey(f"folder:{other}").contents


def test_an_image_that_went_bad_is_named(tmp_path):
    root = few(tmp_path / "set", each=20)
    part = load(contents.found(DataSpec(name=f"folder:{root}")), "cpu", AugmentSpec(crop=(0.5, 1.0))).test
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(StemlabError, match=r"\.png: empty, though it was an image when the study was made"):
        next(part.batches([torch.arange(2)]))
    forget()


def test_one_model_trains_on_a_folder_and_tells_what_is_skipped(tmp_path):
    root = few(tmp_path / "set", each=20)
    (root / "class0" / "bad.png").write_bytes(b"no image")
    model = {"stem": {"patch": 8}, "body": {"dim": 32, "depth": 1, "heads": 2}, "image_size": 32}
    recipe = {"epochs": 1, "warmup_epochs": 0, "batch_size": 8}
    record = stemlab.train_model(model, root, recipe, out=tmp_path / "out", device="cpu")
    assert record.status == "ok", record.error
    assert json.loads((tmp_path / "out" / "data.json").read_text())["files"] == {"class0/bad.png": "not an image"}
    assert stemlab.load(tmp_path / "out").classes == 2


def test_the_recipe_varies_what_trains_and_nothing_else(tmp_path):
    spec = contents.found(DataSpec(name=f"folder:{few(tmp_path / 'set', each=20)}"))
    plain, varied = (load(spec, "cpu", augment) for augment in (None, AugmentSpec(flip=1.0)))
    chosen = [torch.arange(4)]
    for name in ("train", "validation", "test"):
        (one, _), (other, _) = (next(getattr(splits, name).batches(chosen, [1])) for splits in (plain, varied))
        assert torch.equal(one, other) == (name != "train")
    forget()


# In memory.


@pytest.mark.parametrize("size", [16, (24, 16)])
def test_a_small_set_in_memory_has_the_images_that_a_stream_gives(tmp_path, monkeypatch, size):
    root = few(tmp_path / "set", each=20)
    save(picture(1, 77, (60, 24)), root / "class1" / "tall", "CMYK")
    spec = contents.found(DataSpec(name=f"folder:{root}", image_size=size))
    recipes = None, AugmentSpec(crop=(0.5, 1.0))
    in_memory, streamed = (load(spec, "cpu", augment) for augment in recipes)
    assert isinstance(in_memory.train, MemoryPart)
    assert isinstance(streamed.train, StreamPart)
    for name in ("train", "validation", "test"):
        one, other = getattr(in_memory, name), getattr(streamed, name)
        chosen = torch.randperm(len(one)).split(5)
        for (a, labels), (b, same) in zip(one.batches(chosen), other.batches(chosen), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
            assert labels.tolist() == same.tolist()
    monkeypatch.setattr("stemlab.data.memory.MOST", 1000)
    assert isinstance(load(spec).train, StreamPart)
    forget()


def test_pixels_that_are_kept_are_those_of_the_files_as_they_are(tmp_path):
    root = few(tmp_path / "set", each=20)
    spec = contents.found(DataSpec(name=f"folder:{root}"))
    first = next(load(spec).train.batches([torch.arange(4)]))[0]
    forget()
    assert torch.equal(next(load(spec).train.batches([torch.arange(4)]))[0], first)
    for path in root.rglob("*.png"):  # as many bytes as before, and no more the same
        size = path.stat().st_size
        path.write_bytes(images.content(Image.new("RGB", (20, 20)), "png").ljust(size, b"\0"))
    forget()
    assert not torch.equal(next(load(spec).train.batches([torch.arange(4)]))[0], first)
    forget()


def test_a_set_that_is_read_from_files_takes_no_memory_of_the_gpu():
    held = {"classes": 1000, "train": 1_281_167, "test": 50_000, "listing": "x"}
    large = DataSpec(name="folder:/imagenet", image_size=224, contents=held)
    small = DataSpec(name="folder:/few", image_size=32, contents={**held, "train": 10_000, "test": 1000})
    crop = AugmentSpec(crop=(0.1, 1.0))
    assert bytes_in_memory(large, None) == bytes_in_memory(small, crop) == 0
    assert bytes_in_memory(small, AugmentSpec(flip=0.5)) == 11_000 * 3 * 32 * 32
    assert bytes_in_memory(DataSpec(name="digits"), crop) == 1797 * 3 * 4 * 32 * 32


def test_an_ablation_reports_on_its_data(tmp_path):
    root = few(tmp_path / "set", each=20)
    (root / "class0" / "bad.png").write_bytes(b"")
    document = {name: value for name, value in study(root).items() if name != "search"}
    document["train"] = {"epochs": 1, "warmup_epochs": 0, "lr": {"choice": [1.0e-3, 2.0e-3]}}
    stemlab.ablate({**document, "ablate": {"seeds": [0]}}, tmp_path / "out")
    assert "1 image is skipped" in (tmp_path / "out" / "report.html").read_text()
    assert "| skipped | empty | 1 |" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "out" / "tables" / "data.csv").exists()


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/x", "x" * 5000, "a\0b", "\ud800"])
def test_a_path_that_can_be_none_is_refused(path):
    with pytest.raises(SpecError, match=r"data.name: .*(no such folder|needs its path)"):
        load_search({**study(Path("x")), "data": {"name": f"folder:{path}"}})
