"""Where a folder dataset lies: what is found, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.layout import dataset_root, environments
from domainbed_adm.errors import UserError


def tree(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def test_a_dataset_is_found_below_data_dir(tmp_path):
    tree(tmp_path, "office_home/A", "Mine/a")
    assert dataset_root(get_card("OfficeHome"), str(tmp_path)) == tmp_path / "office_home"
    assert dataset_root(get_card("Mine"), tmp_path) == tmp_path / "Mine"


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tree(tmp_path, "Mine")))
    assert dataset_root(get_card("Mine"), "~") == tmp_path / "Mine"


def test_no_data_dir_says_which_folder_to_give():
    with pytest.raises(
        UserError, match=r"PACS is read from disk: give --data_dir, the folder that holds PACS/<domain>"
    ):
        dataset_root(get_card("PACS"), None)


def test_an_unknown_name_without_data_dir_gets_the_nearest_dataset():
    with pytest.raises(UserError, match=r"Did you mean RotatedDigits\?.*give --data_dir"):
        dataset_root(get_card("RotatedDigit"), None)


def test_a_missing_data_dir_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data_dir .*absent is no folder; it should hold VLCS/<domain>"):
        dataset_root(get_card("VLCS"), tmp_path / "absent")


def test_a_missing_folder_is_named_beside_what_is_there(tmp_path):
    tree(tmp_path, "VLCS", "terra", ".cache")
    with pytest.raises(UserError) as caught:
        dataset_root(get_card("PACS"), tmp_path)
    assert (
        str(caught.value) == f"dataset PACS: no folder {tmp_path / 'PACS'}; {tmp_path} holds the folders VLCS, terra."
    )


def test_an_empty_data_dir_is_said_to_be_empty(tmp_path):
    with pytest.raises(UserError, match="holds no folders"):
        dataset_root(get_card("PACS"), tmp_path)


def test_a_long_list_of_folders_is_cut(tmp_path):
    tree(tmp_path, *(f"d{i:02}" for i in range(20)))
    with pytest.raises(UserError, match=r"d00, .*d11 and 8 more\."):
        dataset_root(get_card("PACS"), tmp_path)


@pytest.mark.parametrize(("given", "meant"), [("pacs", "PACS"), ("Shape", "Shapes"), ("ColoredMNST", "ColoredMNIST")])
def test_a_misspelt_name_gets_the_nearest_folder_or_dataset(tmp_path, given, meant):
    tree(tmp_path, "PACS", "Shapes")
    with pytest.raises(UserError, match=rf"no folder .*{given};.* Did you mean {meant}\?"):
        dataset_root(get_card(given), tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/tmp"])
def test_a_name_that_leaves_data_dir_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="name of one folder in data_dir"):
        dataset_root(get_card(name), tmp_path)


def test_environments_are_the_sorted_folders_that_are_not_hidden(tmp_path):
    tree(tmp_path, "b", "a", ".git", "C")
    (tmp_path / "readme.txt").write_text("no folder")
    assert environments(get_card("Mine"), tmp_path) == ["C", "a", "b"]


@pytest.mark.parametrize("folders", [(), ("only",), ("only", ".hidden")])
def test_fewer_than_two_domains_are_an_error(tmp_path, folders):
    with pytest.raises(UserError, match="at least two domains"):
        environments(get_card("Mine"), tree(tmp_path, *folders))


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"folder .* cannot be read: Permission denied"):
        environments(get_card("Mine"), tmp_path)
