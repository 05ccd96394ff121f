"""Bundles: equal inputs give equal bytes, and whatever was changed is refused before it is used."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.cli.bundle import verify
from airflow_mlops.delivery.bundle import FILES, MANIFEST, SIGNATURE, content_hash, pack, read_bundle, unpack
from airflow_mlops.delivery.tree import TreeFile, overlapping, read_tree, unsafe, write_tree
from airflow_mlops.exceptions import ConfigError, UntrustedArtifact
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store.content import canonical_json

SIGNER, OTHER = Signer.generate(), Signer.generate()
TRUSTING, OPEN = Verifier((SIGNER.public,)), Verifier()
TREE = {
    "pipelines/churn.yaml": TreeFile(b"pipeline: churn\n"),
    "features/churn.py": TreeFile(b"def build(frame):\n    return frame\n"),
    "run.sh": TreeFile(b"#!/bin/sh\n", executable=True),
    "empty": TreeFile(b""),
}
PACKAGES = {"pandas": "3.0.1", "airflow-mlops": "0.1.0"}


def packed(signer: Signer | None = SIGNER, **changes: object) -> bytes:
    given = {"project": "crm", "commit": "a" * 40, "packages": PACKAGES, **changes}
    return pack(given.pop("tree", TREE), signer=signer, **given)


def refused(data: bytes, verifier: Verifier = TRUSTING) -> str:
    with pytest.raises(UntrustedArtifact) as raised:
        read_bundle(data, verifier=verifier)
    return raised.value.message


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The bundle with other entries, written as one who attacks would write it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {i.filename: archive.read(i) for i in archive.infolist()}
        rights = {i.filename: i.external_attr for i in archive.infolist()}
    change(entries)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = rights.get(name, 0o100644 << 16)
            archive.writestr(info, content)
    return out.getvalue()


class TestWriting:
    def test_what_was_packed_is_read_back(self) -> None:
        bundle = read_bundle(packed(), verifier=TRUSTING)
        assert bundle.files == TREE
        assert bundle.signed_by == SIGNER.key_id
        assert bundle.content == content_hash(TREE)
        assert (bundle.manifest["project"], bundle.manifest["commit"]) == ("crm", "a" * 40)
        assert bundle.manifest["packages"] == PACKAGES

    def test_equal_inputs_give_equal_bytes(self) -> None:
        backwards = dict(reversed(TREE.items()))
        assert packed() == packed(tree=backwards, packages=dict(reversed(PACKAGES.items())))

    def test_equal_bytes_in_another_process(self, tmp_path: Path) -> None:
        write_tree(TREE, tmp_path / "tree")
        for file in (tmp_path / "tree").rglob("*"):
            os.utime(file, (1, 1))
        code = (
            "import sys; from pathlib import Path; from airflow_mlops.delivery.bundle import pack\n"
            "from airflow_mlops.delivery.tree import read_tree\n"
            f"tree = read_tree(Path({str(tmp_path / 'tree')!r}), {sorted(TREE)!r})\n"
            f"sys.stdout.buffer.write(pack(tree, project='crm', commit={'a' * 40!r}, packages={PACKAGES!r}))"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "3"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
        assert done.stdout == packed(signer=None)

    @pytest.mark.parametrize(
        "changes",
        [{"commit": None}, {"uncommitted": True}, {"project": "x"}, {"packages": {}}, {"signer": OTHER},
         {"tree": TREE | {"empty": TreeFile(b"", executable=True)}}],
    )  # fmt: skip
    def test_every_input_counts(self, changes: dict) -> None:
        assert packed(**changes) != packed()

    def test_the_content_hash_is_that_of_the_files_alone(self) -> None:
        hashes = {json.dumps(c): read_bundle(packed(**c), verifier=OPEN).content for c in ({}, {"commit": None})}
        assert len(set(hashes.values())) == 1
        assert content_hash({"a": TreeFile(b"x")}) != content_hash({"b": TreeFile(b"x")})

    def test_pins_are_what_is_installed(self) -> None:
        manifest = read_bundle(packed(packages=None), verifier=OPEN).manifest
        import pandas

        assert manifest["packages"]["pandas"] == pandas.__version__
        assert "apache-airflow" in manifest["packages"]

    @pytest.mark.parametrize(
        ("tree", "told"),
        [({}, "no file"), ({"../a": TreeFile(b"")}, "leads elsewhere"),
         ({"a": TreeFile(b""), "a/b": TreeFile(b"")}, "a file and a folder")],
    )  # fmt: skip
    def test_what_cannot_be_packed(self, tree: dict, told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            packed(tree=tree)


class TestTampering:
    def test_every_flipped_bit_is_found(self) -> None:
        """All bits, of contents, names, rights, times and what else a zip holds; unsigned bundles too."""
        for signer, verifier, bits in ((SIGNER, TRUSTING, (5,)), (None, OPEN, range(8))):
            small = pack({"a.py": TreeFile(b"x = 1\n")}, project="p", commit=None, packages={}, signer=signer)
            read_bundle(small, verifier=verifier)
            for place in range(len(small)):
                for bit in bits:
                    broken = bytearray(small)
                    broken[place] ^= 1 << bit
                    with pytest.raises(UntrustedArtifact):
                        read_bundle(bytes(broken), verifier=verifier)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_every_cut_and_insertion_is_found(self, data: st.DataObject) -> None:
        whole = packed()
        start = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(start, min(len(whole), start + 50)))
        broken = whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:]
        if broken != whole:
            refused(broken)

    def test_any_bytes_are_refused(self, tmp_path: Path) -> None:
        for data in (b"", b"PK\x05\x06" + b"\0" * 18, b"x" * 1000, packed()[:-1], packed() + b"x", packed() * 2):
            refused(data)

    def test_an_added_file(self) -> None:
        added = rewritten(packed(), lambda e: e.update({FILES + "evil.py": b"import os"}))
        assert "'evil.py' is not in its manifest" in refused(added)

    def test_a_file_taken_away(self) -> None:
        assert "'empty' is missing" in refused(rewritten(packed(), lambda e: e.pop(FILES + "empty")))

    def test_a_changed_file(self) -> None:
        changed = rewritten(packed(), lambda e: e.update({FILES + "features/churn.py": b"import os"}))
        assert "'features/churn.py' was changed" in refused(changed)

    def test_a_right_to_execute_that_was_given(self) -> None:
        data = packed()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {i: archive.read(i) for i in archive.infolist()}
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for info, content in entries.items():
                if info.filename == FILES + "empty":
                    info.external_attr = 0o100755 << 16
                archive.writestr(info, content)
        assert "written otherwise" in refused(out.getvalue())

    def test_a_swapped_signature(self) -> None:
        other = packed(commit="b" * 40)

        def swap(entries: dict[str, bytes]) -> None:
            with zipfile.ZipFile(io.BytesIO(other)) as archive:
                entries[SIGNATURE] = archive.read(SIGNATURE)

        assert "the signature of the bundle is not that of this manifest" in refused(rewritten(packed(), swap))

    def test_the_signature_of_a_model_is_none_of_a_bundle(self) -> None:
        info = {"digest": "a" * 64, "format": "skops", "bytes": 1}
        signature = canonical_json(SIGNER.sign(info, pipeline="churn"))
        assert "is not that of this manifest" in refused(
            rewritten(packed(), lambda e: e.update({SIGNATURE: signature}))
        )

    @pytest.mark.parametrize("signature", [b"[]", b"{}", b'{"key": 1, "value": 2}', b"null", b"{", b"[" * 100_000])
    def test_what_stands_in_the_place_of_a_signature(self, signature: bytes) -> None:
        refused(rewritten(packed(), lambda e: e.update({SIGNATURE: signature})))

    def test_who_signed_it_and_who_had_to(self) -> None:
        assert "is not signed" in refused(packed(signer=None))
        assert "a key that is not trusted" in refused(packed(signer=OTHER))
        assert read_bundle(packed(signer=None), verifier=OPEN).signed_by is None
        lenient = Verifier((SIGNER.public,), allow_unsigned=True)
        assert read_bundle(packed(signer=None), verifier=lenient).signed_by is None
        assert "a key that is not trusted" in refused(packed(signer=OTHER), lenient)
        assert "no key is trusted" in refused(packed(), Verifier(allow_unsigned=False))

    def test_a_whole_bundle_made_anew_needs_the_key(self) -> None:
        evil = {**TREE, "features/churn.py": TreeFile(b"import os")}
        assert "is not signed" in refused(packed(signer=None, tree=evil))
        assert "not trusted" in refused(packed(signer=OTHER, tree=evil))

    def test_another_one_than_was_asked_for(self) -> None:
        with pytest.raises(UntrustedArtifact, match="another one than was asked for"):
            read_bundle(packed(), verifier=TRUSTING, digest="0" * 64)

    @pytest.mark.parametrize(
        "path",
        ["../evil", "/etc/evil", "a/../../evil", "a//b", "./a", "C:/evil", "a\\..\\b", ".git/hooks/x", "a\nb", ""],
    )
    def test_a_path_that_leads_elsewhere(self, path: str) -> None:
        assert unsafe(path) is not None
        assert "damaged" in refused(rewritten(packed(None), lambda e: e.update({FILES + path: b"x"})), OPEN)

    def test_a_symbolic_link(self) -> None:
        data = packed(None)
        out = io.BytesIO(data)
        with zipfile.ZipFile(out, "a") as archive:
            info = zipfile.ZipInfo(FILES + "link")
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
        assert "is no plain file" in refused(out.getvalue(), OPEN)

    def test_a_zip_bomb_is_not_unpacked(self) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST), b"0" * 10_000_000, zipfile.ZIP_DEFLATED)
        refused(out.getvalue(), OPEN)

    def test_an_entry_twice(self) -> None:
        out = io.BytesIO(packed(None))
        info = zipfile.ZipInfo(FILES + "empty", (1980, 1, 1, 0, 0, 0))
        info.external_attr = 0o100644 << 16
        with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(info, b"other")
        assert "is in it twice" in refused(out.getvalue(), OPEN)

    @pytest.mark.parametrize(
        "change", [{"bundle": 2}, {"more": 1}, {"files": []}, {"content": "0"}, {"files": {"a": 1}}]
    )
    def test_a_manifest_of_another_shape(self, change: dict) -> None:
        def edit(entries: dict[str, bytes]) -> None:
            entries[MANIFEST] = canonical_json(json.loads(entries[MANIFEST]) | change)

        refused(rewritten(packed(None), edit), OPEN)


class TestTree:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        write_tree(TREE, tmp_path / "out")
        assert read_tree(tmp_path / "out", [*TREE, "gone", "empty/none"]) == TREE

    def test_nothing_is_written_over(self, tmp_path: Path) -> None:
        with pytest.raises(FileExistsError):
            write_tree(TREE, tmp_path)

    def test_links_and_other_things_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/etc/passwd")
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        for path, told in (("link", "symbolic link"), ("folder", "no plain file"), ("pipe", "no plain file")):
            with pytest.raises(ConfigError, match=told):
                read_tree(tmp_path, [path])
        with pytest.raises(ConfigError, match="leads elsewhere"):
            read_tree(tmp_path, ["../x"])

    @given(st.lists(st.text("ab/", max_size=6)))
    def test_overlapping(self, paths: list[str]) -> None:
        found = overlapping(paths)
        real = {p for p in paths for q in paths if q.startswith(p + "/")}
        assert found in real if real else found is None


class TestUnpacking:
    def test_whole_and_once(self, tmp_path: Path) -> None:
        bundle = read_bundle(packed(), verifier=TRUSTING)
        unpack(bundle, tmp_path / "out")
        assert read_tree(tmp_path / "out", TREE) == TREE
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        with pytest.raises(ConfigError, match="already there"):
            unpack(bundle, tmp_path / "out")

    def test_nothing_is_left_where_it_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Path, mode: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "chmod", full)
        with pytest.raises(ConfigError, match="No space left"):
            unpack(read_bundle(packed(), verifier=TRUSTING), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


class TestCommand:
    @pytest.fixture(autouse=True)
    def _keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", SIGNER.public)
        for name in ("ALLOW_UNSIGNED", "ALLOW_PICKLE", "MLOPS_CONN_ID"):
            monkeypatch.delenv(f"AIRFLOW__MLOPS__{name}", raising=False)

    def args(self, file: Path, **given: object) -> Namespace:
        return Namespace(**{"file": str(file), "digest": None, "unpack": None, "output": "text", **given})

    def test_what_it_says(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "b.zip").write_bytes(packed())
        verify(self.args(tmp_path / "b.zip", unpack=str(tmp_path / "out")))
        told = capsys.readouterr().out
        assert f"signed by   {SIGNER.key_id}" in told
        assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o111
        verify(self.args(tmp_path / "b.zip", output="json"))
        assert json.loads(capsys.readouterr().out)["signed_by"] == SIGNER.key_id

    def test_what_it_refuses(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "b.zip").write_bytes(packed(signer=OTHER))
        for file in ("b.zip", "none.zip"):
            with pytest.raises(SystemExit) as ended:
                verify(self.args(tmp_path / file, unpack=str(tmp_path / "out")))
            assert ended.value.code == 1
            assert "What to do" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
