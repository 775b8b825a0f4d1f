import json
import pickle
import tarfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from archives import SHARED, WNIDS, png, read_all, release, source, synset, tar

from ltray.data.archives.ilsvrc2012 import TASKS_1_AND_2, VAL
from ltray.data.archives.index import Index, index_of
from ltray.data.archives.published import check_published
from ltray.data.archives.source import Found, Section
from ltray.errors import LtrayError

MINI = SHARED / "ilsvrc2012-mini"
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="shared/data/ilsvrc2012-mini is absent")


def test_labels_are_ranks_and_a_name_may_come_twice(tmp_path: Path) -> None:
    train = [
        ("n00000002.tar", synset(tmp_path, "n00000002_7.JPEG", "n00000002_7.JPEG")),
        ("n00000001.tar", synset(tmp_path, "n00000001_1.JPEG")),
        ("n00000002.tar", synset(tmp_path, "n00000002_7.JPEG")),
    ]
    opened = source("ilsvrc2012", release(tmp_path, train, val=3))
    val = [(f"ILSVRC2012_val_0000000{n}.JPEG", png(n)) for n in (3, 1, 2, 4)]
    tar(tmp_path / TASKS_1_AND_2.archives[VAL], val)
    splits = index_of(opened).splits
    name = "n00000002.tar/n00000002_7.JPEG"
    assert splits["train"].keys == [
        name,
        f"{name}#2",
        "n00000001.tar/n00000001_1.JPEG",
        f"{name}#3",
    ]
    assert splits["train"].labels.tolist() == [1, 1, 0, 1]
    # Ground truth is the id 1, 2, 3 of images 1, 2, 3; ids run against ranks.
    assert splits["val"].labels.tolist() == [0, 2, 1]
    assert index_of(opened).refused[0].key == "ILSVRC2012_val_00000004.JPEG"
    assert read_all(opened, splits["val"]) == [png(3), png(1), png(2)]
    assert opened.class_names()[1] == "n00000002 words 1"


def test_what_is_no_image_in_the_archive_is_refused_by_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "inner.tar", "w") as archive:
        for name, kind in [("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("../../n00000001_1.JPEG")
        member.size = 3
        archive.addfile(member, BytesIO(b"abc"))
    train = [
        ("n00000001.tar", (tmp_path / "inner.tar").read_bytes()),
        ("._n00000001.tar", b"\x00\x05\x16\x07"),
        ("n00000002.tar", b""),
        ("n00000003.tar", tar(tmp_path / "empty.tar", [])),
        ("n00000009.tar", synset(tmp_path, "n00000009_1.JPEG")),
    ]
    index = index_of(source("ilsvrc2012", release(tmp_path, train)))
    assert [refused.key for refused in index.refused] == [
        "n00000001.tar/link",
        "._n00000001.tar",
        "n00000002.tar",
        "n00000003.tar",
        "n00000009.tar/n00000009_1.JPEG",
    ]
    assert index.splits["train"].keys == ["n00000001.tar/../../n00000001_1.JPEG"]


def test_an_inner_archive_that_is_cut_names_both(tmp_path: Path) -> None:
    inner = synset(tmp_path, "n00000001_1.JPEG", "n00000001_2.JPEG")
    train = [("n00000001.tar", inner[:1500]), ("n00000002.tar", synset(tmp_path, "n00000002_1"))]
    with pytest.raises(LtrayError, match=r"img_train\.tar: n00000001\.tar: .*partly there"):
        index_of(source("ilsvrc2012", release(tmp_path, train)))


def test_missing_archives_and_broken_devkits_are_named(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match=r"lacks ILSVRC2012_img_train\.tar and"):
        source("ilsvrc2012", tmp_path).files()
    release(tmp_path, [("n00000001.tar", synset(tmp_path, "n00000001_1.JPEG"))])
    devkit = tmp_path / TASKS_1_AND_2.devkit
    devkit.write_bytes(devkit.read_bytes()[:-50])
    with pytest.raises(LtrayError, match="not the whole development kit"):
        index_of(source("ilsvrc2012", tmp_path))


def test_a_part_of_a_published_archive_is_named_as_such(tmp_path: Path) -> None:
    train = [("n00000001.tar", synset(tmp_path, "n00000001_1.JPEG"))]
    archive = release(tmp_path, train) / TASKS_1_AND_2.train
    archive.write_bytes(archive.read_bytes()[:1500])
    with pytest.raises(LtrayError, match=r"it has 1,500 bytes.* published 147,897,477,120"):
        index_of(source("ilsvrc2012", tmp_path))
    with pytest.raises(LtrayError, match="published file has 1d675b47d978889d74fa0da5fadfb00e"):
        check_published(archive)


def test_sections_may_be_looked_through_anywhere_and_in_any_order(tmp_path: Path) -> None:
    train = [(f"{wnid}.tar", synset(tmp_path, f"{wnid}_1.JPEG")) for wnid in WNIDS]
    opened = source("ilsvrc2012", release(tmp_path, train))

    def elsewhere(
        look_through: Callable[[Section], Found], sections: Sequence[Section]
    ) -> list[Found]:
        found = {section: look_through(section) for section in reversed(sections)}
        return [pickle.loads(pickle.dumps(found[section])) for section in sections]

    here, there = index_of(opened), index_of(opened, elsewhere)
    for split, examples in here.splits.items():
        assert there.splits[split].keys == examples.keys
        assert np.array_equal(there.splits[split].places, examples.places)


@needs_mini
def test_task_3_has_its_own_classes(tmp_path: Path) -> None:
    opened = source("ilsvrc2012_t3", MINI)
    splits = index_of(opened).splits
    names = opened.class_names()
    assert len(names) == 120
    keys = [key for of in splits.values() for key in of.keys]
    labels = [label for of in splits.values() for label in of.labels.tolist()]
    assert len(keys) == 15
    assert [names[label].split()[0] for label in labels] == [key.split(".")[0] for key in keys]
    assert set(splits) == {"train", "test"}  # no labelled val of its own: a fifth is set aside


@pytest.fixture(scope="module")
def mini() -> Index:
    return index_of(source("ilsvrc2012", MINI))


@needs_mini
def test_every_image_of_the_miniature_is_found_with_its_label(mini: Index) -> None:
    said = json.loads((MINI / "ILSVRC2012_mini_manifest.json").read_text())
    rank = {wnid: label for label, wnid in enumerate(sorted(said["wnid_to_ILSVRC2012_ID"]))}
    found = {
        split: dict(zip(of.keys, of.labels.tolist(), strict=True))
        for split, of in mini.splits.items()
    }
    train = {f"{wnid}.tar/{name}": rank[wnid] for name, wnid in said["train"].items()}
    assert found["train"] == train
    assert found["val"] == {name: rank[wnid] for name, wnid in said["val"].items()}
    assert found["test"] == dict.fromkeys(said["test"], -1)
    assert [len(of) for of in found.values()] == [550, 70, 20]
    assert mini.refused == []


@needs_mini
def test_every_image_of_the_miniature_is_read_bit_for_bit(mini: Index) -> None:
    said = json.loads((MINI / "ILSVRC2012_mini_manifest.json").read_text())["sha256_of_member"]
    opened = pickle.loads(pickle.dumps(source("ilsvrc2012", MINI)))  # as it travels to a task
    for split, of in mini.splits.items():
        backwards = of.take(range(len(of.keys))[::-1])
        for key, image in zip(backwards.keys, opened.read(backwards), strict=True):
            name = key.rpartition("/")[2] if split == "train" else key
            assert said[f"{split}/{name}"] == sha256(image).hexdigest()
