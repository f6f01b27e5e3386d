"""What is said of the folder of trusted roots before any certificate is read."""

from pathlib import Path

from edge.package import trust_folder


def test_a_folder_that_is_well(tmp_path: Path) -> None:  # [S-3]
    (tmp_path / "root.pem").touch()
    tmp_path.chmod(0o755)
    assert trust_folder.trouble(tmp_path) == ""


def test_missing_empty_and_writable(tmp_path: Path) -> None:  # [S-3]
    folder = tmp_path / "roots"
    assert trust_folder.trouble(folder).startswith(f"the folder of trusted roots {folder} cannot be read: No such file")
    folder.write_text("")
    assert "cannot be read: Not a directory" in trust_folder.trouble(folder)
    folder.unlink()
    folder.mkdir()
    (folder / "README").touch()
    assert f"{folder} holds no .pem file" in trust_folder.trouble(folder)
    (folder / "root.pem").touch()
    for mode in (0o775, 0o757):
        folder.chmod(mode)
        assert f"has mode {mode:04o}: others could change which roots are trusted" in trust_folder.trouble(folder)
