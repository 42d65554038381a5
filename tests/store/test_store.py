"""A store as a whole: its directories, its scratch space, its locks."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.store.store import Store, remove_tree
from tests.support.together import together


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_new_store_is_an_empty_layout(store: Store) -> None:
    names = set(os.listdir(store.root))
    assert {"oci-layout", "index.json", "blobs", "tmp"} <= names
    assert "cache.db" not in names  # made when it is needed
    assert store.images.all() == []


def test_opening_twice_changes_nothing(store: Store) -> None:
    digest = store.layout.put(b"x")
    again = Store(store.root)
    assert again.layout.read(digest) == b"x"


def test_a_relative_root_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    monkeypatch.chdir("/")
    assert store.root == str(tmp_path / "here")
    assert store.layout.index().manifests == []


def test_a_place_that_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the store") as caught:
        Store(str(tmp_path / "file"))
    assert "--root" in (caught.value.remedy or "")


def test_scratch_space_goes_away(store: Store) -> None:
    with store.scratch() as one, store.scratch() as two:
        assert one != two
        assert os.stat(one).st_mode & 0o777 == 0o700
        (Path(one) / "d").mkdir()
        (Path(one) / "d" / "f").write_text("x")
        (Path(one) / "d").chmod(0)
        (Path(one) / "l").symlink_to("/")
    assert os.listdir(store.temporary) == []


def test_scratch_space_goes_away_after_an_error(store: Store) -> None:
    def fail() -> None:
        with store.scratch() as scratch:
            (Path(scratch) / "f").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(store.temporary) == []


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "f").write_text("x")
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "l").symlink_to(tmp_path / "precious")
    (tmp_path / "tree" / "a").chmod(0)
    remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "precious" / "f").exists()


def test_a_lock_says_whether_it_was_waited_for(store: Store) -> None:
    inside, waited = threading.Event(), []

    def second() -> None:
        inside.set()
        with store.lock("name") as had_to_wait:
            waited.append(had_to_wait)

    with store.lock("other"), store.lock("name") as had_to_wait:
        assert had_to_wait is False
        thread = threading.Thread(target=second)
        thread.start()
        assert inside.wait(10)
        thread.join(0.2)
        assert waited == []
    thread.join(10)
    assert waited == [True]
    assert os.listdir(store.temporary) == []


def test_a_store_is_closed(store: Store) -> None:
    store.database.add_memo("kind", "key", b"x")
    store.close()
    assert Store(store.root).database.memo("kind", "key") == b"x"


def test_several_make_one_store(tmp_path: Path) -> None:
    """Its directory for temporary files is drawn, and still one for all."""
    root, stores = str(tmp_path / "store"), []
    begin = threading.Barrier(8)

    def open_it() -> None:
        begin.wait(10)
        made = Store(root)
        with made.scratch() as path:
            stores.append((made, os.stat(os.path.dirname(path)).st_ino))

    together(*[open_it] * 8)
    assert {inode for _, inode in stores} == {os.stat(os.path.join(root, "tmp")).st_ino}
    assert len(stores) == 8
    assert len([name for name in os.listdir(root) if len(name) == 16]) == 0  # none of those drawn is left
    assert os.stat(os.path.join(root, "tmp")).st_mode & 0o7777 == 0o755
    for made, _ in stores:
        made.close()
