from conftest import MakeRun

from ltray.analysis.card import as_text, split_lines, write_card
from ltray.data.manifest import read_manifest


def test_the_card_counts_what_the_shards_hold_and_shows_some_of_it(make_run: MakeRun) -> None:
    run = make_run()
    write_card(run.data)
    page = run.data.card.read_text()
    assert "1,797 images" in page
    assert page.count("<img ") == 48  # 24 of train and of test
    assert "Every input was taken." in page
    train, test = split_lines(read_manifest(run.data))
    assert (train.images, train.classes, test.images, test.classes) == (1438, 10, 359, 10)
    assert train.per_class == (139, 144.5, 146)


def test_the_card_of_a_terminal_is_a_table(make_run: MakeRun) -> None:
    lines = as_text(read_manifest(make_run().data))
    assert lines[0].split() == ["split", "images", "classes", "images", "a", "class", "stored"]
    assert lines[1].startswith("train  1,438   10       139 to 146, median 144")
    assert lines[-1].startswith("mean size 8 x 8 -> 8 x 8")
