"""Loggers: what they get, and that none of them can stop or delay a run."""

import json
import pathlib
import sys
import threading
import time

import pytest

from deeplab2_kmax import files
from deeplab2_kmax.cli import main as command
from deeplab2_kmax.config import checks, load_config
from deeplab2_kmax.errors import ConfigError, UserError
from deeplab2_kmax.training.reporting.loggers import background
from deeplab2_kmax.training.reporting.loggers.background import BackgroundLogger, Loggers
from deeplab2_kmax.training.reporting.loggers.factory import _KINDS, build_loggers, require_loggers
from deeplab2_kmax.training.reporting.loggers.run_ids import keep_run_id, run_id
from deeplab2_kmax.training.reporting.loggers.run_logger import RunFacts

FACTS = RunFacts("shapes", "nowhere", "experiment_name: 'shapes'", "train")


class Recorder:
    """A logger that keeps what it gets, and fails or hangs where told to."""

    def __init__(self, fails_in="", hangs_in=""):
        self.calls, self.fails_in, self.hangs_in = [], fails_in, hangs_in
        self.released = threading.Event()

    def _call(self, name, *arguments):
        if name == self.hangs_in:
            self.released.wait()
        if name == self.fails_in:
            # What some libraries do in place of an error.
            sys.exit("no route to host\nsecond line")
        self.calls.append((name, *arguments))

    def start(self, facts):
        self._call("start", facts)
        return "here"

    def scalars(self, step, values):
        self._call("scalars", step, values)

    def end(self, complete):
        self._call("end", complete)


def test_figures_arrive_in_order_and_what_is_not_finite_is_left_out(capsys):
    recorder = Recorder()
    loggers = Loggers([BackgroundLogger("recorder", recorder, FACTS)])
    loggers.scalars(1, {"train/loss": 2.0, "train/nan": float("nan")})
    loggers.scalars(2, {"train/loss": 1.5})
    loggers.end(True)
    assert recorder.calls == [
        ("start", FACTS),
        ("scalars", 1, {"train/loss": 2.0}),
        ("scalars", 2, {"train/loss": 1.5}),
        ("end", True),
    ]
    assert capsys.readouterr().out == "recorder: here\n"


@pytest.mark.parametrize("method", ["start", "scalars", "end"])
def test_a_logger_that_fails_is_told_once_and_left_alone(capsys, method):
    recorder, other = Recorder(fails_in=method), Recorder()
    loggers = Loggers([BackgroundLogger("dead", recorder, FACTS), BackgroundLogger("other", other, FACTS)])
    for step in range(3):
        loggers.scalars(step, {"train/loss": 1.0})
    loggers.end(True)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("logger dead is given up, and the run goes on without it: SystemExit: no route to host") == 1
    assert "second line" not in printed
    assert [call[0] for call in other.calls] == ["start", "scalars", "scalars", "scalars", "end"]


def test_figures_that_are_no_numbers_do_not_end_a_run(capsys):
    loggers = Loggers([BackgroundLogger("strict", Recorder(), FACTS)])
    loggers.scalars(1, {"train/loss": {"nested": 1.0}})
    loggers.end(True)
    assert "logger strict is given up" in capsys.readouterr().out


def test_a_logger_that_hangs_delays_nothing(capsys, monkeypatch):
    monkeypatch.setattr(background, "_LONGEST_QUEUE", 5)
    recorder = Recorder(hangs_in="scalars")
    logger = BackgroundLogger("slow", recorder, FACTS, seconds_to_end=0.1)
    start = time.monotonic()
    for step in range(100):
        logger.scalars(step, {"train/loss": 1.0})
    logger.end(True)
    assert time.monotonic() - start < 5
    assert capsys.readouterr().out.count("given up") == 1
    recorder.released.set()


def test_a_logger_that_hangs_at_the_end_is_not_waited_for(capsys):
    recorder = Recorder(hangs_in="end")
    BackgroundLogger("slow", recorder, FACTS, seconds_to_end=0.1).end(True)
    assert "it has not ended within 0 s; what it had not sent yet" in " ".join(capsys.readouterr().out.split())
    recorder.released.set()


@pytest.mark.parametrize("name, package, extra", [("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "mlflow")])
def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf"trainer_options.loggers: {name} needs .*pip install 'deeplab2_kmax\[{extra}\]'"
    ):
        require_loggers([name])
    require_loggers([])


def test_names_are_the_same_everywhere_and_others_are_refused():
    assert tuple(_KINDS) == checks.LOGGERS == command._LOGGERS
    config = load_config("shapes/kmax_tiny", ["trainer_options.loggers=mlflow"])
    assert list(config.trainer_options.loggers) == ["mlflow"]
    with pytest.raises(ConfigError, match="trainer_options.loggers: expected one of wandb, mlflow; got 'wandbb'"):
        load_config("shapes/kmax_tiny", ["trainer_options.loggers=wandbb"])


def test_a_flag_adds_to_the_config(monkeypatch):
    from deeplab2_kmax import training

    seen = []
    monkeypatch.setattr(training, "run_experiment", lambda config, *_, **__: seen.append(config))
    with pytest.raises(SystemExit):
        command.main(["train", "--config_file=shapes/kmax_tiny", "--logger=wandb", "--logger=mlflow"])
    assert list(seen[0].trainer_options.loggers) == ["wandb", "mlflow"]


@pytest.mark.parametrize("remote", [False, True])
def test_ids_are_kept_in_the_folder_for_each_mode(tmp_path, remote):
    folder = "ram://logged" if remote else str(tmp_path)
    assert run_id(folder, "wandb", "train") is None
    keep_run_id(folder, "wandb", "train", "abc")
    keep_run_id(folder, "wandb", "continuous_eval", "def")
    assert run_id(folder, "wandb", "train_and_eval") == "abc"
    assert run_id(folder, "wandb", "continuous_eval") == "def"
    assert run_id(folder, "mlflow", "train") is None
    files.write_text(files.join(folder, "loggers.json"), "cut off {")
    assert run_id(folder, "wandb", "train") is None


def test_weights_and_biases_offline(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb", reason="pip install 'deeplab2_kmax[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    facts = RunFacts("shapes", str(tmp_path), "a config", "train")
    loggers = build_loggers(["wandb"], facts)
    loggers.scalars(100, {"train/losses/total": 2.5, "eval/evaluation/pq/PQ": 0.5})
    loggers.scalars(50, {"eval/evaluation/pq/PQ": 0.25})
    loggers.end(True)
    assert "given up" not in capsys.readouterr().out
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = written.read_bytes()
    for part in (b"train/losses/total", b"evaluation/pq/PQ", b"a config"):
        assert part in content
    identity = json.loads((tmp_path / "loggers.json").read_text())["wandb/train"]
    assert written.name == f"run-{identity}.wandb"


def test_mlflow_writes_files_and_goes_on_with_its_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow", reason="pip install 'deeplab2_kmax[mlflow]'")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs" / "shapes"
    folder.mkdir(parents=True)
    for step in (100, 200):  # Two processes, one run.
        loggers = build_loggers(["mlflow"], RunFacts("shapes", str(folder), "a config", "train"))
        loggers.scalars(step, {"eval/pq_class/traffic light (red)": step / 1000})
        loggers.end(step == 200)
    assert "given up" not in capsys.readouterr().out
    client = MlflowClient(tracking_uri=pathlib.Path(tmp_path, "runs", "mlruns").as_uri())
    experiment = client.get_experiment_by_name("shapes")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "train"
    history = client.get_metric_history(run.info.run_id, "eval/pq_class/traffic light _red_")
    assert [(metric.step, metric.value) for metric in history] == [(100, 0.1), (200, 0.2)]
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["config.textproto"]


def test_a_server_that_is_gone_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow", reason="pip install 'deeplab2_kmax[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    loggers = build_loggers(["mlflow"], RunFacts("shapes", str(tmp_path), "a config", "train"))
    loggers.scalars(1, {"train/losses/total": 1.0})
    loggers.end(True)
    assert "logger mlflow is given up, and the run goes on without it" in " ".join(capsys.readouterr().out.split())
