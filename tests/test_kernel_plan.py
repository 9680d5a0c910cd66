"""Plans on the command line: what would run, and why."""

import json

import pytest

from pyconvx.__main__ import main


def planned(capsys, *arguments):
    assert main(["kernels", "plan", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_candidate_of_the_fewest_clocks_wins_and_the_reason_is_said(capsys):
    said = planned(capsys, "--shape", "n=32,c=64,h=56,k=128,r=3", "--device", "a100")
    clocks = [row["clocks"] for row in said["rows"]]
    assert len(clocks) > 4 and clocks == sorted(clocks)
    best, second = said["rows"][:2]
    assert said["title"].endswith(best["tile"])
    assert said["notes"][0].startswith(
        f"{best['tile']} wins with {best['clocks']} clocks, bound by {best['bound by']}; "
    )
    assert f"{second['tile']} needs 1." in said["notes"][0]
    assert any(note.startswith("launches pyconvx::fprop_") and "bytes shared" in note for note in said["notes"])
    assert all(row["blocks per SM"] >= 1 and row["waves"] > 0 for row in said["rows"])


def test_what_binds_a_kernel(capsys):
    def bound(*arguments):
        return planned(capsys, *arguments)["rows"][0]["bound by"]

    assert bound("--shape", "n=64,c=64,h=112,k=64,r=1") == "DRAM"
    assert bound("--shape", "n=64,c=512,h=56,k=512,r=3", "--device", "rtx4090") == "math pipes"
    assert bound("--shape", "n=1,c=64,h=7,k=64,r=1") == "latency"


def test_a_tile_that_is_asked_for(capsys):
    shape = ("--shape", "n=32,c=64,h=56,k=128,r=1")
    tile = planned(capsys, *shape)["rows"][-1]["tile"]
    said = planned(capsys, *shape, "--tile", tile)
    assert said["title"].endswith(tile)
    assert said["notes"][0].startswith(f"{tile} was asked for; the model gives it ")


def test_transposes_and_workspaces_are_shown(capsys):
    said = planned(capsys, "--shape", "c=64,h=8,k=64", "--contiguous", "--dtype", "fp64")
    assert said["notes"][0] == "fprop_plain has no tiles to choose from."
    assert sum("pyconvx::transpose" in note for note in said["notes"]) == 3
    assert any(note.startswith("workspace nhwc_input: ") for note in said["notes"])


def test_as_text(capsys):
    assert main(["kernels", "plan", "--shape", "c=3,h=224,k=64,r=7,stride=2", "--device", "h100"]) == 0
    said = capsys.readouterr().out
    assert "fprop_few_channels" in said and "math pipes" in said and "Nothing was timed" in said


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--shape", "c=64,q=3"], "'q=3' is no part of a shape"),
        (["--shape", "c=64,stride=0"], "stride must be at least 1"),
        (["--shape", "c=64", "--device", "gtx"], 'there is no device "gtx"; the ones described are t4, a100'),
        (["--shape", "c=64", "--device", "t4"], "need compute capability 8.0, and t4 has 7.5"),
        (["--shape", "c=64", "--tile", "3x3x3"], "no tile 3x3x3"),
    ],
)
def test_refusals_are_sentences(arguments, sentence, capsys):
    assert main(["kernels", "plan", *arguments]) == 2
    assert sentence in capsys.readouterr().err
