"""``pyconvx`` on the command line: what each command prints, and how it ends."""

import json
import subprocess
import sys

import pytest
import torch

import pyconvx
from pyconvx import backends
from pyconvx.__main__ import main
from pyconvx.table import Table

MODEL = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv1d(8, 8, 1))

    def forward(self, x):
        return self[2](self[1](self[0](x)))

def empty():
    return nn.Linear(2, 2)

def number():
    return 7

def grouped():
    return nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with a module of models in it."""
    (tmp_path / "some_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("some_models", None)


def output(capsys, *arguments):
    assert main(arguments) == 0
    return capsys.readouterr().out


def as_json(capsys, *arguments):
    return json.loads(output(capsys, *arguments, "--json"))


def refusal(capsys, *arguments):
    """Run what cannot be done and return the one sentence on stderr."""
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("pyconvx: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


def test_python_dash_m_and_its_exit_codes():
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "pyconvx", *arguments], capture_output=True, text=True)

    shown = run("--help")
    assert shown.returncode == 0
    for command in ("info", "demo", "swap", "explain", "bench"):
        assert command in shown.stdout
    refused = run("swap", "no_such_module:Net")
    assert refused.returncode == 2
    assert refused.stderr.startswith("pyconvx: cannot import 'no_such_module'") and "Traceback" not in refused.stderr


# info


def test_info_has_all_parts(capsys):
    info = as_json(capsys, "info")
    assert set(info) == {"versions", "optional", "machine", "gpu", "backends"}
    assert info["versions"]["pyconvx"] == pyconvx.__version__
    assert info["versions"]["torch"] == torch.__version__
    assert set(info["versions"]) == {"pyconvx", "python", "torch", "numpy"}
    assert set(info["optional"]) == {"triton", "cupy", "nvrtc", "nvcc"}
    assert all(set(part) == {"version", "meaning"} and part["meaning"] for part in info["optional"].values())
    assert set(info["machine"]) == {"system", "processor", "cores", "threads_of_torch", "instruction_set"}
    assert bool(info["gpu"]["devices"]) != bool(info["gpu"]["why_none"])


def test_info_has_every_backend_and_its_sentences(capsys):
    info = as_json(capsys, "info")
    assert [backend["name"] for backend in info["backends"]] == [backend.name for backend in backends.registered()]
    by_name = {backend["name"]: backend for backend in info["backends"]}
    for name, backend in by_name.items():
        assert backend["summary"] == backends._registry[name].summary
        assert list(backend["conv2d"]) == ["float64", "float32", "bfloat16", "float16"]
    assert by_name["cpu"]["unavailable"] is None and by_name["cpu"]["details"]
    assert by_name["cpu"]["conv2d"]["float64"] == "oneDNN has no float64 convolution"
    assert set(by_name["aten"]["conv2d"].values()) == {None}


def test_info_says_why_a_backend_is_not_there(capsys, monkeypatch):
    class Absent(backends.Backend):
        name, summary, devices = "absent", "a backend that is missing something", frozenset({"cuda"})

        def unavailable(self):
            return "no driver was found"

    monkeypatch.setitem(backends._registry, "absent", Absent())
    info = as_json(capsys, "info")
    assert info["backends"][-1]["unavailable"] == "no driver was found"
    assert set(info["backends"][-1]["conv2d"].values()) == {"no driver was found"}
    assert info["optional"]["cupy"]["meaning"] in ("backend cupy needs it", "backend cupy uses it")
    assert "not available: no driver was found" in output(capsys, "info")


def test_info_for_people(capsys):
    text = output(capsys, "info")
    for words in ("Software", "Machine", "Backend cpu", "Backend aten", "oneDNN has no float64 convolution"):
        assert words in text
    assert torch.__version__ in text


# swap


def test_swap_reports_every_layer(capsys, here):
    report = as_json(capsys, "swap", "some_models:Net")
    assert report["title"] == "pyconvx.swap: 2 of 3 layers swapped"
    assert [(row["name"], row["layer"], row["outcome"]) for row in report["rows"]] == [
        ("0", "Conv2d", "swapped"),
        ("2", "MaxPool2d", "swapped"),
        ("3", "Conv1d", "pyconvx has no Conv1d"),
    ]
    assert report["rows"][0]["shape"] == "3 -> 8, 3x3"
    text = output(capsys, "swap", "some_models:Net")
    assert "2 of 3 layers swapped" in text and "pyconvx has no Conv1d" in text
    assert "" not in sys.path[:1], "the current directory must not stay on the path"


def test_swap_takes_include_and_exclude(capsys, here):
    rows = as_json(capsys, "swap", "some_models:Net", "--exclude", "0", "--exclude", "3")["rows"]
    assert [row["outcome"] for row in rows][:2] == ["named by exclude", "swapped"]
    rows = as_json(capsys, "swap", "some_models:Net", "--include", "0")["rows"]
    assert [row["outcome"] for row in rows][:2] == ["swapped", "not named by include"]


def test_swap_of_nothing_warns_and_with_strict_fails(capsys, here):
    assert main(["swap", "some_models:empty"]) == 0
    assert "pyconvx: swap: nothing was swapped in this Linear" in capsys.readouterr().err
    assert "nothing was swapped" in refusal(capsys, "swap", "some_models:empty", "--strict")


def test_models_that_cannot_be_built(capsys, here, monkeypatch):
    assert "cannot import 'nowhere': No module named 'nowhere'" in refusal(capsys, "swap", "nowhere:Net")
    assert "has no factory 'Nett'; it has: Net, empty, number, grouped" in refusal(capsys, "swap", "some_models:Nett")
    assert "gave a int, expected a torch.nn.Module" in refusal(capsys, "swap", "some_models:number")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    sentence = refusal(capsys, "swap", "resnet5")
    assert "torchvision is not installed, timm is not installed" in sentence and "module:factory" in sentence


def test_models_by_name(capsys, monkeypatch):
    from types import ModuleType

    torchvision, timm = ModuleType("torchvision"), ModuleType("timm")
    torchvision.models = ModuleType("torchvision.models")
    torchvision.models.list_models = lambda: ["one"]
    torchvision.models.get_model = lambda name, weights: torch.nn.Conv2d(3, 4, 5)
    timm.is_model = lambda name: name == "two"
    timm.create_model = lambda name, pretrained: torch.nn.Conv2d(6, 7, 8)
    for module in (torchvision, torchvision.models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert as_json(capsys, "swap", "one")["rows"][0]["shape"] == "3 -> 4, 5x5"
    assert as_json(capsys, "swap", "two")["rows"][0]["shape"] == "6 -> 7, 8x8"
    assert "torchvision has no such model, timm has no such model" in refusal(capsys, "swap", "three")
    assert as_json(capsys, "explain", "lenet5", "--no-swap", "--input", "1,1,32,32")["rows"][0]["backend"] == "cpu"


# explain


def test_explain_says_what_ran_each_call(capsys, here):
    table = as_json(capsys, "explain", "some_models:Net", "--input", "2,3,8,8")
    assert [(row["module"], row["operation"], row["backend"]) for row in table["rows"]] == [
        ("0", "conv2d", "cpu"),
        ("2", "max_pool2d", "cpu"),
    ]
    assert "n2 c3 h8 w8 k8 r3 s3" in table["rows"][0]["problem"] and "nchw" in table["rows"][0]["problem"]


def test_explain_takes_dtype_layout_and_no_swap(capsys, here):
    table = as_json(
        capsys, "explain", "some_models:grouped", "--input", "1,8,8,8", "--dtype", "fp64", "--channels-last"
    )
    (row,) = table["rows"]
    assert row["backend"] == "aten" and row["why not another"] == "cpu: oneDNN has no float64 convolution"
    assert "float64 nhwc" in row["problem"]
    table = as_json(capsys, "explain", "some_models:Net", "--input", "1,3,8,8", "--no-swap")
    assert {row["backend"] for row in table["rows"]} == {"torch"}


def test_explain_of_a_wrong_input_is_a_sentence(capsys, here):
    assert "does not run on an input of 1,4,8,8 (--input)" in refusal(
        capsys, "explain", "some_models:Net", "--input", "1,4,8,8"
    )
    assert "needs an input of four sizes" in refusal(
        capsys, "explain", "some_models:Net", "--input", "3,8,8", "--channels-last"
    )
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "some_models:Net", "--input", "1x3x8x8"])
    assert stopped.value.code == 2
    assert "'1x3x8x8' is no size; write it like 1,3,224,224" in capsys.readouterr().err


# bench and demo


def test_bench_prints_rows(capsys):
    arguments = ("bench", "conv", "--shapes", "lenet5", "--limit", "2", "--repeat", "2", "--threads", "1")
    table = as_json(capsys, *arguments, "--pass", "all", "--batch", "2", "--dtype", "bf16", "--channels-last")
    assert table["title"] == "pyconvx bench conv: lenet5, N2 bfloat16 channels_last, cpu, 1 threads"
    assert len(table["rows"]) == 6
    assert all(row["match"].startswith("ok ") for row in table["rows"])
    text = output(capsys, *arguments, "--frozen", "--backend", "cpu")
    assert "C1 H32 W32 K6 R5 S5" in text and "torch us" in text and "ok 0." in text


@pytest.mark.parametrize("index", ["none", "uint8", "int64"])
def test_bench_takes_forms_of_index(capsys, index):
    arguments = ("bench", "pool", "--shapes", "lenet5", "--limit", "1", "--repeat", "2")
    (row,) = as_json(capsys, *arguments, "--index", index)["rows"]
    moved = row["GB/s"] * row["us"] * 1e3
    assert moved == pytest.approx(6 * (28 * 28 * 4 + 14 * 14 * (4 + {"none": 0, "uint8": 1, "int64": 8}[index])))


def test_bench_refuses_in_a_sentence(capsys):
    assert "there are no shapes of 'vgg'" in refusal(capsys, "bench", "conv", "--shapes", "vgg")
    assert "there is no backend 'gpu'" in refusal(capsys, "bench", "conv", "--backend", "gpu")
    assert "oneDNN has no float64 convolution" in refusal(
        capsys, "bench", "conv", "--backend", "cpu", "--dtype", "fp64", "--limit", "1"
    )


def test_demo_ends_with_its_verdict(capsys, monkeypatch):
    from pyconvx import demo

    right = Table("demo", ("claim", "seen", "verdict"), [("it works", "it does", "shown")])
    wrong = Table("demo", ("claim", "seen", "verdict"), [("it works", "it does not", "FAILED")])
    monkeypatch.setattr(demo, "run", lambda quick, show_progress: right)
    assert as_json(capsys, "demo")["rows"] == [{"claim": "it works", "seen": "it does", "verdict": "shown"}]
    monkeypatch.setattr(demo, "run", lambda quick, show_progress: wrong)
    assert main(["demo", "--quick"]) == 1


def test_demo_without_scikit_learn_is_a_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "pip install scikit-learn" in refusal(capsys, "demo")


@pytest.mark.parametrize("arguments", [[], ["bench"], ["polish"], ["bench", "pool", "--pass", "wgrad"]])
def test_wrong_words_end_with_usage(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: pyconvx")
