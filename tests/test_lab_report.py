"""`eocodec lab`: reports are complete, go on where they stopped, and say in one sentence what is wrong with a file."""

import base64
import dataclasses
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from eocodec_cli.lab import command
from paths import ROOT
from PIL import Image

from eocodec.errors import EocodecError
from eocodec.lab.data.factor_analysis import factor_analysis
from eocodec.lab.data.library import SETS
from eocodec.lab.report import running
from eocodec.lab.report.comparison import comparison, comparison_table, over_runs
from eocodec.lab.report.configuration import load_report
from eocodec.lab.report.examination import same_pairs, shared_directions
from eocodec.lab.subjects.linear import PrincipalComponents
from eocodec.lab.subjects.objective import METHODS
from eocodec.lab.subjects.plans import PLANS

REPORT = """
seeds = 2
top = 4
[data]
set = "fa15"
samples = 200
[[subject]]
kind = "pca"
latents = 4
[[subject]]
kind = "vae"
method = "bfVAE"
latents = 5
iterations = 3
[[subject]]
kind = "flow"
name = "EOFlow"
iterations = 3
"""


@pytest.fixture(scope="module")
def finished(made_once) -> Path:
    """A folder with a report that is complete; not to be changed."""

    def make(folder: Path) -> None:
        (folder / "report.toml").write_text(REPORT)
        result = CliRunner().invoke(command, [str(folder / "report.toml"), "--json"], catch_exceptions=False)
        assert result.exit_code == 0
        (folder / "printed.json").write_text(result.stdout)

    return made_once("lab-report", make)


@pytest.fixture
def without_pages(monkeypatch) -> None:
    """Pages are not drawn, which takes as long as all that is measured: for tests of what is not on them."""
    monkeypatch.setattr(running, "subject_page", lambda *arguments: "")


@pytest.mark.slow
def test_every_subject_has_page_and_measures_and_stands_in_the_comparison(finished):
    out = finished / "report"
    table = json.loads((out / "comparison.json").read_text())
    flow = json.loads((out / "EOFlow.json").read_text())
    assert np.array(flow["mcpmi"]).shape == (4, 4) and 0 <= flow["same_pairs"] <= 4
    assert list(table) == ["PCA", "bfVAE", "EOFlow"]
    assert [table[name]["runs"] for name in table] == [1, 2, 2]
    for name in table:
        page, held = (out / f"{name}.html").read_text(), json.loads((out / f"{name}.json").read_text())
        assert page.count("<svg") >= 6 and f"{name}.html" in (out / "index.html").read_text()
        run = held["runs"][0]
        assert np.array(run["fvh"]["variance"]).shape == (4, 15) == np.array(run["dbsr"]["block"]).shape
        assert len(run["gaps"]["c"]) == 4 == len(run["variation"])
        assert run["supervised"]["samples"] == 200
        assert run["gaps"]["sum"] == pytest.approx(run["gaps"]["tc"] + run["gaps"]["dtc"], abs=2e-4)
        assert f"| {name} |" in (out / "comparison.md").read_text()
    assert table["PCA"]["mean c, nats"][0] == pytest.approx(0, abs=1e-6)
    assert table["PCA"]["GAS"] is None and 0 < table["EOFlow"]["GAS"][0] <= 1
    assert json.loads((finished / "printed.json").read_text()) == table


@pytest.mark.slow
@pytest.mark.usefixtures("without_pages")
def test_finished_runs_are_not_repeated_and_changed_ones_are(finished, monkeypatch, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "lab")
    trained = []
    for plan in set(PLANS.values()):
        original = plan.train

        def train(self, data, seed, progress, original=original):
            trained.append((self.title, seed))
            return original(self, data, seed, progress)

        monkeypatch.setattr(plan, "train", train)
    before = (folder / "report" / "comparison.json").read_text()
    running.carry_out(load_report(folder / "report.toml"))
    assert trained == [] and (folder / "report" / "comparison.json").read_text() == before
    # a run that was lost, and a subject that has changed
    (folder / "report" / "runs" / "bfVAE-1.pt").write_bytes(b"half written")
    (folder / "changed.toml").write_text(REPORT.replace('name = "EOFlow"', 'name = "EOFlow"\ncorrelation = 2.0'))
    running.carry_out(load_report(folder / "changed.toml"))
    assert trained == [("bfVAE", 1), ("EOFlow", 0), ("EOFlow", 1)]


@pytest.mark.slow
def test_restored_subjects_are_those_that_were_trained(finished):
    report = load_report(finished / "report.toml")
    from eocodec.lab.data.library import load_set

    data = load_set(report.data, report.folder)
    for plan in report.plans:
        subject, state = plan.train(data, 0, lambda done: None)
        again = plan.restore(data, state)
        np.testing.assert_array_equal(subject.encode(data.held_out).mean, again.encode(data.held_out).mean)


@pytest.mark.slow
def test_pictures_have_traversals_on_their_page(tmp_path):
    (tmp_path / "r.toml").write_text(
        'seeds = 1\ntop = 3\n[data]\nset = "sprites"\nsamples = 60\n[[subject]]\nkind = "pca"\nlatents = 3\n'
        '[[subject]]\nkind = "flow"\ncomponents = 4\niterations = 1\n'
    )
    running.carry_out(load_report(tmp_path / "r.toml"))
    page = (tmp_path / "report" / "PCA.html").read_text()
    sheet = base64.b64decode(
        re.search(r'<img alt="traversals of z1, z2, z3" src="data:image/png;base64,([^"]+)', page)[1]
    )
    assert Image.open(io.BytesIO(sheet)).size == (9 * 34 * 2, 3 * 34 * 2)


DIVERGING = (
    'kind = "vae"\nmethod = "VAE"\nlatents = 3\nrate = 1000.0',
    'kind = "flow"\nname = "VAE"\nrate = 1.0\nnet_rate = 1.0',
    'kind = "flow"\nname = "VAE"\nrate = 1.0\nnet_rate = 1.0\noptimiser = "soap"',
)


@pytest.mark.parametrize("subject", DIVERGING)
def test_a_training_that_diverges_is_one_sentence_and_its_weights_are_not_kept(tmp_path, subject):
    path = tmp_path / "r.toml"
    path.write_text(f'seeds = 1\n[data]\nset = "fa15"\nsamples = 400\n[[subject]]\n{subject}\niterations = 60\n')
    for _ in range(2):
        with pytest.raises(EocodecError, match="the training of VAE diverged; lower its rate"):
            running.carry_out(load_report(path))
    assert not list((tmp_path / "report" / "runs").iterdir())


def test_broken_weights_are_not_kept_and_those_that_were_are_trained_again(tmp_path, monkeypatch):
    path = tmp_path / "r.toml"
    path.write_text('seeds = 1\n[data]\nset = "fa15"\nsamples = 30\n[[subject]]\nkind = "vae"\niterations = 1\n')
    report, weights = load_report(path), tmp_path / "report" / "runs" / "bfVAE-0.pt"
    monkeypatch.setattr(running, "examine", lambda *arguments: 1 / 0)
    original = PLANS["vae"].train

    def broken_at_the_end(self, data, seed, progress):
        subject = original(self, data, seed, progress)[0]
        subject.net.encoder[0].weight.fill_(np.nan)
        return subject, dict(subject.net.state_dict())

    with monkeypatch.context() as m:
        m.setattr(PLANS["vae"], "train", broken_at_the_end)
        with pytest.raises(EocodecError, match="the training of bfVAE diverged"):
            running.carry_out(report)
        assert not weights.exists()
        m.setattr(running, "is_finite", lambda subject, x: True)  # as in earlier versions
        with pytest.raises(ZeroDivisionError):
            running.carry_out(report)
    assert not torch.isfinite(torch.load(weights, weights_only=True)["state"]["encoder.0.weight"]).any()
    with pytest.raises(ZeroDivisionError):
        running.carry_out(report)
    assert torch.isfinite(torch.load(weights, weights_only=True)["state"]["encoder.0.weight"]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("seeds = 2", "seeds = 0"), "seeds must be from 1 to 64"),
        (("seeds = 2", "sedes = 2"), "unknown entry sedes"),
        (('set = "fa15"', 'set = "dsprites"'), "no set is called dsprites"),
        (("samples = 200", "samples = -3"), "samples of the set fa15"),
        (("samples = 200", "sample = 3"), "no option sample"),
        (('kind = "pca"', 'kind = "ica"'), "a subject's kind is one of"),
        (('method = "bfVAE"', 'method = "XVAE"'), "no VAE is called XVAE"),
        (("latents = 5", "latents = 0"), "latents of a subject"),
        (("latents = 5", "latent = 5"), "has no entry latent"),
        (("latents = 5", "weights = {gamma = 1}"), "weights of bfVAE have no entry gamma; known are: kl, capacity"),
        (("latents = 5", 'weights = {kl = "a"}'), "kl in the weights of bfVAE cannot be 'a'"),
        (("latents = 5", 'weights = {warm_up = "a"}'), "warm_up in the weights of bfVAE cannot be 'a'"),
        (("latents = 5", "weights = {kl = -1.0}"), "kl in the weights of bfVAE cannot be -1.0"),
        (("latents = 5", "weights = {kl = true}"), "kl in the weights of bfVAE cannot be True"),
        (("latents = 5", "weights = {ramp = 0}"), "ramp in the weights of bfVAE cannot be 0"),
        (("latents = 5", "weights = {of_samples = 1}"), "of_samples in the weights of bfVAE cannot be 1"),
        (("latents = 5", "rate = inf"), "rate of a subject of kind vae cannot be inf"),
        (("latents = 5", "weights = {correlation = 2.0}"), "correlation of the noise"),
        (('name = "EOFlow"', 'start = "middle"'), "starts random or from components, not middle"),
        (('name = "EOFlow"', 'optimiser = "sgd"'), "optimiser is adam or soap, not sgd"),
        (('name = "EOFlow"', 'name = "PCA"'), "two subjects are called PCA"),
        (("[data]", "[data"), "cannot be read as TOML"),
    ],
)
def test_mistakes_in_a_file_are_one_sentence(tmp_path, change, sentence):
    assert change[0] in REPORT
    path = tmp_path / "r.toml"
    path.write_text(REPORT.replace(*change, 1))
    with pytest.raises(EocodecError, match=sentence):
        running.carry_out(load_report(path))
    assert not [p for p in (tmp_path / "report").rglob("*") if p.is_file()]  # nothing was trained


def test_face_model_refuses_other_pictures(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[data]\nset = "sprites"\nsamples = 60\n[[subject]]\nkind = "face"\n')
    with pytest.raises(EocodecError, match="64x64 pixels in colour"):
        running.carry_out(load_report(path))


def test_a_folder_that_cannot_be_written_to_is_said_before_the_set_is_read(tmp_path, monkeypatch):
    (tmp_path / "r.toml").write_text(REPORT)
    (tmp_path / "report").write_bytes(b"a file")
    monkeypatch.setattr(running, "load_set", lambda *arguments: pytest.fail("read"))
    with pytest.raises(EocodecError, match=r"runs: cannot be written to \(Not a directory\)"):
        running.carry_out(load_report(tmp_path / "r.toml"))


@pytest.mark.parametrize(("held_out", "top"), [(5, 16), (1, 1)])
def test_too_few_held_out_pictures_are_one_sentence_before_anything_is_trained(tmp_path, monkeypatch, held_out, top):
    random = np.random.default_rng(0)
    for folder, count in (("train", 20), ("eval", held_out)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            picture = random.integers(256, size=(64, 64, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{k}.png")
    path = tmp_path / "r.toml"
    path.write_text(
        f'top = {top}\n[data]\nset = "faces"\ntrain = "train"\nheld_out = "eval"\n'
        '[[subject]]\nkind = "flow"\ncomponents = 4\niterations = 1\n[[subject]]\nkind = "pca"\n'
    )
    monkeypatch.setattr(PLANS["flow"], "train", lambda *arguments: pytest.fail("trained"))
    message = f"measuring {top} latent.* of PCA needs" if top == 16 else "measuring 1 latent of flow λ = 1 needs"
    with pytest.raises(EocodecError, match=f"{message} more than {top} held-out samples, not {held_out}"):
        running.carry_out(load_report(path))


@pytest.mark.usefixtures("without_pages")
def test_fewer_latents_than_wanted_are_noted_once(tmp_path):
    (tmp_path / "r.toml").write_text(
        'seeds = 1\ntop = 2\n[data]\nset = "torus"\nsamples = 30\n[[subject]]\nkind = "pca"\nlatents = 21\n'
    )
    for _ in range(2):
        result = CliRunner().invoke(command, [str(tmp_path / "r.toml")], catch_exceptions=False)
        note = "PCA has 20 of 21 latents: 30 samples vary in no more directions"
        assert result.exit_code == 0 and result.stderr.splitlines().count(note) == 1


def test_aligned_runs_are_averaged_in_the_order_of_the_reference():
    a = np.random.default_rng(0).standard_normal((100, 2))
    runs = [
        {"seed": k, "fvh": {"lssi": 1.0 - k, "informative": [True, True], "variance": v, "count": 2, "lsdi": 1.0}}
        for k, v in enumerate(([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]))
    ]
    found = over_runs("x", runs, [a, -a[:, ::-1]])
    assert found["mean_variance"] == [[1.0, 0.0], [0.0, 1.0]] and found["mean_lssi"] == pytest.approx(1.0)
    assert found["gas"] == pytest.approx(1.0) and found["aligned"][0]["sign"] == [-1.0, -1.0]
    found["runs"][1]["dependence"] = {"total_correlation": math.inf}
    table = comparison({"x": found})
    assert table["x"]["TC of codes, nats"] is None
    assert table["x"]["MIG"] is None and "MIG" not in comparison_table(table)


def test_pairs_by_directions_are_those_by_values_where_both_are_the_same():
    strong = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert same_pairs(-np.log(1 - strong), strong) == 2
    assert same_pairs(strong[::-1], strong) == 0


def test_directions_of_a_subject_are_shared_with_itself():
    data = factor_analysis("fa15", 100)
    subject = PrincipalComponents.fit(data.train, 4)
    found = shared_directions(subject, subject, data, 4, 3)
    np.testing.assert_allclose(np.diag(found), 10.0)
    assert np.abs(found - np.diag(np.diag(found))).max() < 1e-9


@pytest.mark.slow
@pytest.mark.usefixtures("without_pages")
def test_the_start_of_the_documentation_runs(tmp_path, capsys):
    text = (ROOT / "docs" / "LAB.md").read_text()
    report = text.split("<<'END'\n", 1)[1].split("\nEND", 1)[0]
    short = re.sub(r'kind = "(vae|flow)"', r'kind = "\1"\niterations = 2', report)
    assert short.count("iterations = 2") == 3
    (tmp_path / "report.toml").write_text(short.replace('set = "fa15"', 'set = "fa15"\nsamples = 100', 1))
    table = running.carry_out(load_report(tmp_path / "report.toml"))
    assert list(table) == ["PCA", "VAE", "bfVAE", "flow λ = 1"] and (tmp_path / "report" / "index.html").exists()
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert "iterations=300" in code
    exec(code.replace("iterations=300", "iterations=2"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["scale", "rotation", "hue"]


def test_the_documentation_lists_every_set_kind_and_method():
    text = (ROOT / "docs" / "LAB.md").read_text()
    for name in (*SETS, *PLANS):
        assert f"`{name}`" in text, name
    for name in METHODS:
        assert name in text, name
    for plan in PLANS.values():
        for field in dataclasses.fields(plan):
            assert field.name in ("name", "method") or f"`{field.name}`" in text, field.name
