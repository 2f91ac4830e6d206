"""TFDS builders of the published datasets, by a loop and on Apache Beam: the same dataset."""

import functools
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import person_clips
import pytest
import tensorflow_datasets as tfds

from psrjax.data import codec
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.datasets import adapter, build, catalogue, tfds_builder

DATASETS = Path(__file__).parents[2] / "datasets"
SMALL = adapter.DatasetOptions(size=(32, 32))


@functools.cache  # TFDS registers a builder once
def builder_class(name):
    """The builder of `datasets/NAME`, which no package holds."""
    path = DATASETS / name / f"{name}_dataset_builder.py"
    spec = importlib.util.spec_from_file_location(f"{name}_dataset_builder", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return next(v for v in vars(module).values() if isinstance(v, type) and v.ADAPTER == name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """first-order-motion's layout: three clips of more frames than one record holds, a bad one."""
    root = tmp_path_factory.mktemp("raw")
    generator = np.random.default_rng(0)
    for split, names in (("train", "ab"), ("test", "c")):
        for name in names:
            frames = generator.integers(0, 255, (19, 32, 32, 3), np.uint8)
            person_clips.write_pictures(root / split / name, frames)
    (root / "train" / "bad.mp4").write_bytes(b"\0" * 64)
    return root


@pytest.mark.parametrize("name", list(catalogue.NAMES))
def test_every_set_has_a_builder_and_a_page_that_says_the_licence(name):
    builder = builder_class(name)
    assert builder.name == name and builder.ADAPTER == name and builder.__doc__
    page = (DATASETS / name / "README.md").read_text()
    assert "**Licence" in page and f"psrjax prepare --dataset {name} RAW_DIR --to DIR" in page
    dataset = catalogue.get(name)
    assert all(stream in page for stream in dataset.streams(dataset.defaults))
    assert not (DATASETS / "__init__.py").exists()


def assert_same(one, other):
    """Asserts that two stored datasets hold the same."""
    for split in ("train", "test"):
        first, second = Source(one, split), Source(other, split)
        assert first.streams == second.streams
        assert {c.name for c in first.clips} == {c.name for c in second.clips}
        for clip in first.clips:
            assert clip.views.keys() == second.clip(clip.name).views.keys()
            for view, facts in clip.views.items():
                assert dict(facts.meta) == dict(second.clip(clip.name).views[view].meta)
                for stream in first.streams:
                    np.testing.assert_array_equal(
                        first.read(clip.name, view, stream), second.read(clip.name, view, stream)
                    )
    for view, mean in Source(one, "train").means.items():
        np.testing.assert_array_equal(mean, Source(other, "train").means[view])


def test_the_builder_writes_what_prepare_writes_and_tfds_reads_it(folder, tmp_path):
    build.build("dance_fashion", folder, tmp_path / "prepared", SMALL, processes=1)
    builder = builder_class("dance_fashion")(data_dir=tmp_path / "tfds", options=SMALL)
    config = tfds.download.DownloadConfig(manual_dir=str(folder))
    builder.download_and_prepare(download_config=config)
    assert_same(tmp_path / "prepared", builder.data_dir)
    again = tfds.builder_from_directory(builder.data_dir)
    assert again.info.splits["train"].num_examples == 2 * -(-19 // codec.SEGMENT)


def test_beam_gives_the_same_data_set_and_tells_what_it_left_out(folder, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install 'psrjax[beam]'")
    build.build("dance_fashion", folder, tmp_path / "prepared", SMALL, processes=1)
    summary = tfds_builder.build_on_beam(
        "dance_fashion", folder, tmp_path / "beam", SMALL, runner="DirectRunner"
    )
    assert_same(tmp_path / "prepared", tmp_path / "beam")
    assert summary["clips"] == 3 and list(summary["failed"]) == ["bad"]
    assert json.loads((tmp_path / "beam" / build.SUMMARY).read_text()) == summary
    assert not (tmp_path / "beam.beam").exists()


def test_without_beam_its_flag_says_how_to_get_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'psrjax\[beam\]'"):
        tfds_builder.build_on_beam("dance_fashion", folder, tmp_path / "x", SMALL, runner="X")


def test_a_cut_off_run_goes_on_and_other_options_are_refused(folder, tmp_path, monkeypatch):
    work = []
    whole = build.store.write

    def cut_off(directory, *arguments, **options):
        work.append(Path(directory).name)
        if len(work) == 2:
            raise KeyboardInterrupt
        return whole(directory, *arguments, **options)

    monkeypatch.setattr(build.store, "write", cut_off)
    arguments = ("dance_fashion", folder, tmp_path / "set")
    with pytest.raises(KeyboardInterrupt):
        build.build(*arguments, SMALL, processes=1)
    assert not (tmp_path / "set").exists()
    build.build(*arguments, SMALL, processes=1)
    assert work.count(work[0]) == 1  # the first clip was not prepared again
    with pytest.raises(UserError, match="another"):
        build.build(*arguments, adapter.DatasetOptions(size=(16, 16)), processes=1)


def test_unknown_sets_crops_and_folders_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="one of ntu_rgbd, iper"):
        catalogue.get("kinetics")
    with pytest.raises(UserError, match="--crop follow: ntu_rgbd knows squeeze, fixed"):
        adapter.complete_options(catalogue.get("ntu_rgbd"), adapter.DatasetOptions(crop="follow"))
    with pytest.raises(UserError, match="--seconds means nothing to ntu_rgbd"):
        adapter.complete_options(catalogue.get("ntu_rgbd"), adapter.DatasetOptions(seconds=10.0))
    for name, options in (
        ("dance_fashion", adapter.DatasetOptions(joints="mediapipe")),
        ("video_folder", adapter.DatasetOptions(joints="none")),
    ):
        with pytest.raises(UserError, match="--crop .* joints"):
            build.build(name, folder, tmp_path / "set", options)
    with pytest.raises(UserError, match="no such folder of iper"):
        build.build("iper", tmp_path / "none", tmp_path / "set")
    with pytest.raises(UserError, match="no clip of ntu_rgbd.*page on ntu_rgbd shows its layout"):
        build.build("ntu_rgbd", folder, tmp_path / "set")
