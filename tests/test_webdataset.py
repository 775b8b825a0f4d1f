from pathlib import Path

import pytest
from archives import png, read_all, source, tar

from ltray.data.archives.index import index_of
from ltray.errors import LtrayError


def test_samples_are_members_of_one_key(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    tar(
        tmp_path / "some-train-000.tar",
        [
            ("a/0001.cls", b"2\n"),
            ("a/0001.png", png(1)),
            ("a/0001.json", b"{}"),
            ("b/0001.v2.png", b"an ending that is none"),
            ("b/0002.seg.png", b"another"),
            ("c.PNG", png(3)),
            ("c.cls", b"0"),
        ],
    )
    tar(tmp_path / "deep" / "validation-000.tar", [("a.png", png(4)), ("a.cls", b"1")])
    (tmp_path / "classnames.txt").write_text("cat\ndog\nemu\n")
    opened = source("webdataset", tmp_path)
    index = index_of(opened)
    assert index.splits["train"].keys == ["some-train-000.tar/a/0001", "some-train-000.tar/c"]
    assert index.splits["train"].labels.tolist() == [2, 0]
    assert index.splits["val"].keys == ["deep/validation-000.tar/a"]
    assert read_all(opened, index.splits["train"]) == [png(1), png(3)]
    assert [refused.key for refused in index.refused] == [
        "some-train-000.tar/b/0001",
        "some-train-000.tar/b/0002",
    ]
    assert opened.geometry() == (4, 3)
    assert opened.class_names() == ["cat", "dog", "emu"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.png", png(1))], "no label"),
        ([("a.png", png(1)), ("a.cls", b"-1")], "one class number"),
        ([("a.png", png(1)), ("a.cls", b"1.5")], "one class number"),
        ([("a.png", png(1)), ("a.cls", b"9" * 400)], "one class number"),
        ([("a.png", png(1)), ("a.cls", b"1"), ("a.cls", b"2")], "one class number"),
        ([("a.png", png(1)), ("a.jpg", png(1)), ("a.cls", b"1")], "more than one image"),
    ],
)
def test_samples_that_are_not_whole_are_refused(
    members: list[tuple[str, bytes]], reason: str, tmp_path: Path
) -> None:
    tar(tmp_path / "a.tar", [*members, ("b.png", png(1)), ("b.cls", b"0")])
    index = index_of(source("webdataset", tmp_path / "a.tar"))
    assert [refused.key for refused in index.refused] == ["a.tar/a"]
    assert reason in index.refused[0].reason


def test_a_folder_without_tars_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match="there is no tar"):
        source("webdataset", tmp_path).files()
