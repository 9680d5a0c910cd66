"""The benchmarks: their shapes are those of the networks, their match column tells right from wrong."""

import json
import time

import pytest
import torch
import torch.nn.functional as F

import pyconvx
from pyconvx import bench, functional, ops
from pyconvx.bench.match import matches, matches_exactly
from pyconvx.bench.shapes import NETWORKS, Conv, layers
from pyconvx.bench.timing import Timing, interleaved

QUICK = {"shapes": "lenet5", "repeat": 2}


@pytest.mark.parametrize(
    ("network", "macs", "layers"),
    [
        ("lenet5", 117_600 + 240_000 + 48_000, 3),
        ("alexnet", 105_415_200 + 223_948_800 + 149_520_384 + 112_140_288 + 74_760_192, 5),
        ("vgg16", 15_346_630_656, 13),
        ("resnet50", 4_087_136_256, 53),
        ("inception_v3", 5_711_168_096, 94),
    ],
)
def test_networks_have_their_multiply_adds(network, macs, layers):
    shapes = NETWORKS[network].conv
    assert sum(shape.times * shape.macs for shape in shapes) == macs
    assert sum(shape.times for shape in shapes) == layers


@pytest.mark.parametrize("network", NETWORKS)
def test_shapes_stand_once_and_follow_from_each_other(network):
    found = NETWORKS[network]
    for shapes in (found.conv, found.pool, found.residual):
        assert len({shape[1:] for shape in shapes}) == len(shapes)
    # A layer's input is an output of some other, of several put together, or the image.
    convolved = {(shape.k, shape.p, shape.q) for shape in found.conv}
    for pool in found.pool:
        if network != "inception_v3":  # whose pools inside read what branches were put together to
            assert (pool.c, pool.h, pool.w) in convolved
    for residual in found.residual:
        assert residual[1:] in convolved


@pytest.mark.parametrize("shape", [shape for network in NETWORKS.values() for shape in network.conv], ids=str)
def test_output_sizes_are_torchs(shape):
    x = torch.empty(1, shape.c, shape.h, shape.w, device="meta")
    w = torch.empty(shape.k, shape.c // shape.groups, shape.r, shape.s, device="meta")
    output = F.conv2d(x, w, None, shape.stride, shape.padding, 1, shape.groups)
    assert output.shape == (1, shape.k, shape.p, shape.q)


def test_shapes_are_written_in_the_fields_letters():
    assert str(Conv(1, 96, 27, 27, 256, 5, 5, 2, (2, 0), 2)) == "C96 H27 W27 K256 R5 S5 stride 2 pad 2,0 groups 2"


@pytest.mark.parametrize(
    ("operation", "shapes", "passes", "unit"),
    [
        ("conv", "lenet5", ["fprop", "dgrad", "wgrad"], "GFLOP/s"),
        ("pool", "lenet5", ["fprop", "dgrad"], "GB/s"),
        ("unpool", "lenet5", ["fprop", "dgrad"], "GB/s"),
        ("residual", "resnet50", ["fprop", "dgrad"], "GB/s"),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_a_row_per_shape_and_pass(operation, shapes, passes, unit, channels_last):
    table = bench.run(operation, shapes, 2, pass_="all", channels_last=channels_last, repeat=2, limit=2)
    rows = json.loads(json.dumps(table.as_dict()))["rows"]
    assert [row["pass"] for row in rows] == passes * 2
    expected = layers(shapes, "pool" if operation == "unpool" else operation)[:2]
    assert [row["shape"] for row in rows] == [str(shape) for shape in expected for _ in passes]
    for row in rows:
        assert set(row) == {
            "count", "shape", "pass", "backend", "us", "spread %", unit, "torch us", "ratio", "match",
        }  # fmt: skip
        assert row["us"] > 0 and row["torch us"] > 0 and row[unit] > 0 and row["spread %"] >= 0
        assert row["ratio"] == pytest.approx(row["torch us"] / row["us"])
        assert row["backend"] == "cpu"
        assert row["match"].startswith("ok "), row
    assert ("channels_last" if channels_last else "contiguous") in table.title


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("operation", ["conv", "pool", "unpool"])
def test_all_dtypes_match(operation, dtype):
    table = bench.run(operation, dtype=dtype, pass_="all", **QUICK)
    assert all(row["match"].startswith("ok ") for row in table), str(table)


@pytest.mark.parametrize("index_dtype", [None, torch.uint8, torch.int64])
def test_pools_with_overlapping_windows_match(index_dtype):
    table = bench.run("pool", "alexnet", pass_="all", index_dtype=index_dtype, repeat=2, limit=1)
    assert [row["match"].startswith("ok ") for row in table] == [True, True]
    if index_dtype is not None:
        table = bench.run("unpool", "alexnet", pass_="all", index_dtype=index_dtype, repeat=2, limit=1)
        assert [row["match"] for row in table] == ["ok 0", "ok 0"]


def test_the_rate_counts_two_operations_a_multiply_add():
    (row,) = bench.run("conv", batch=3, limit=1, **QUICK)
    assert row["GFLOP/s"] * row["us"] * 1e3 == pytest.approx(2 * 3 * 117_600)


def test_the_total_counts_layers_as_often_as_they_occur():
    table = bench.run("residual", repeat=2)
    ours = sum(row["count"] * row["us"] for row in table) * 1e-3
    assert f"ours {ours:.3g} ms" in table.notes[0]


def test_it_says_when_times_were_disturbed(monkeypatch):
    for spread, said in ((0.1, False), (0.5, True)):
        monkeypatch.setattr(bench, "interleaved", lambda *_, spread=spread: [Timing(1e-3, spread), Timing(2e-3, 0.1)])
        table = bench.run("conv", **QUICK)
        assert [row["ratio"] for row in table] == [2, 2, 2]
        assert any("3 of 3 spreads are above" in note for note in table.notes) == said


def test_threads_and_backend_hold_for_the_run_only():
    before = torch.get_num_threads()
    table = bench.run("conv", threads=1, backend="aten", limit=1, **QUICK)
    assert next(iter(table))["backend"] == "aten" and "1 threads" in table.title
    assert torch.get_num_threads() == before
    assert pyconvx.backends.forced_name() is None


def test_frozen_filters_are_used(monkeypatch):
    seen = []
    original = functional.conv2d

    def spy(*args, **kwargs):
        seen.append(pyconvx.frozen.packed_filters is not None)
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, "conv2d", spy)
    (row,) = bench.run("conv", frozen=True, limit=1, **QUICK)
    assert row["match"].startswith("ok ") and all(seen)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"operation": "dense"}, "there is no operation 'dense'; there are conv, pool, unpool, residual"),
        ({"operation": "conv", "shapes": "vgg"}, "no shapes of 'vgg'; there are those of lenet5, alexnet, vgg16"),
        ({"operation": "residual", "shapes": "vgg16"}, "vgg16 has no residual layers; these have: resnet50"),
        ({"operation": "pool", "pass_": "wgrad"}, "pool has no pass 'wgrad'; it has fprop, dgrad and all"),
        ({"operation": "conv", "repeat": 1}, "repeat is 1, expected at least 2"),
        ({"operation": "conv", "batch": 0}, "batch is 0, expected at least 1"),
        ({"operation": "conv", "limit": 0}, "limit is 0, expected at least 1"),
        ({"operation": "unpool", "index_dtype": None}, "unpooling needs indices"),
        ({"operation": "conv", "backend": "gpu"}, "there is no backend 'gpu'"),
        ({"operation": "conv", "device": "nowhere"}, "device is 'nowhere', which torch cannot use here"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(pyconvx.InvalidCall, match=sentence):
        bench.run(**arguments)


# Faults that the match column must see.


def wrong_by_a_thousandth(call):
    return lambda *args, **kwargs: call(*args, **kwargs) * 1.001


def in_tf32(call):
    """Drop the bits of the operands that TF32 does not have."""

    def cut(value):
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            return (value.view(torch.int32) & ~0x1FFF).view(torch.float32)
        return value

    return lambda *args, **kwargs: call(*map(cut, args), **kwargs)


def without_the_last_channel(call):
    def wrong(x, w, *args, **kwargs):
        x = x.clone()
        x[:, -1] = 0
        return call(x, w, *args, **kwargs)

    return wrong


@pytest.mark.parametrize("fault", [wrong_by_a_thousandth, in_tf32, without_the_last_channel])
@pytest.mark.parametrize(("shapes", "limit"), [("lenet5", 3), ("resnet50", 2)])
def test_a_wrong_convolution_fails(monkeypatch, fault, shapes, limit):
    monkeypatch.setattr(functional, "conv2d", fault(functional.conv2d))
    table = bench.run("conv", shapes, repeat=2, limit=limit)
    assert all(row["match"].startswith("FAIL") for row in table), str(table)


def test_tf32_fails_at_the_longest_reduction(monkeypatch):
    monkeypatch.setattr(bench.conv2d.functional, "conv2d", in_tf32(functional.conv2d))
    longest = max(NETWORKS["vgg16"].conv, key=lambda shape: shape.c * shape.r * shape.s)
    monkeypatch.setitem(NETWORKS, "one", NETWORKS["vgg16"]._replace(conv=(longest,)))
    (row,) = bench.run("conv", "one", repeat=2)
    assert row["match"].startswith("FAIL")


@pytest.mark.parametrize("name", ["max_pool2d_backward", "max_unpool2d_backward", "relu_backward", "conv2d_dgrad"])
def test_a_wrong_gradient_fails(monkeypatch, name):
    operation = {"max_p": "pool", "max_u": "unpool", "relu_": "residual", "conv2": "conv"}[name[:5]]
    monkeypatch.setattr(ops, name, wrong_by_a_thousandth(getattr(ops, name)))
    shapes = "resnet50" if operation == "residual" else "lenet5"
    (row,) = bench.run(operation, shapes, pass_="dgrad", repeat=2, limit=1)
    assert row["match"].startswith("FAIL")


def test_the_bound():
    exact, scale = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    bound = 4 * 2**-23 * 3
    error = torch.tensor([0, 0, bound / 2, 0])
    assert matches(error, exact, scale, 9) == "ok 0.5"
    assert matches(error * 3, exact, scale, 9) == "FAIL 1.5"
    assert matches(error * float("nan"), exact, scale, 9).startswith("FAIL")
    assert matches(error[:2], exact, scale, 9).startswith("FAIL shape")
    assert matches(torch.zeros(4), exact, torch.zeros(4, dtype=torch.float64), 9) == "ok 0"
    assert matches(torch.ones(4) * 1e-30, exact, torch.zeros(4, dtype=torch.float64), 9) == "FAIL inf"
    assert matches_exactly(torch.ones(4), torch.ones(4).double()) == "ok 0"
    assert matches_exactly(torch.ones(4), exact) == "FAIL in 4 of 4"
    assert matches_exactly(torch.ones(3), exact).startswith("FAIL shape")


def test_times_are_taken_in_turns_and_tell_slow_from_fast():
    calls = []

    def call(name, seconds):
        def run():
            calls.append(name)
            time.sleep(seconds)

        return run

    fast, slow = interleaved([call("a", 0.001), call("b", 0.003)], 4, torch.device("cpu"))
    assert calls[-8:] == list("abbaabba")
    assert 0.001 <= fast.median < 0.003 <= slow.median
    assert fast.spread >= 0
