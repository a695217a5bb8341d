"""The benchmarks' instruction sets: what libraries are held by, and how it is noticed that one was not."""

import os
import platform

import pytest
from benchmarks import isa, machine, peers
from benchmarks.child import Child

from minild.errors import UserError

FEATURES = {"X86_V2": True, "X86_V3": True, "X86_V4": True, "AVX512_ICL": True, "AVX512_SPR": False}
VERBOSE = """\
onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:2
onednn_verbose,v1,info,cpu,isa:Intel AVX2
MKL_VERBOSE oneMKL 2024.0 Product build 20240605 for Intel(R) 64 architecture Intel(R) Advanced Vector Extensions 512 \
(Intel(R) AVX-512) enabled processors, Lnx 2.60GHz lp64 gnu_thread
"""


def test_by_itself_nothing_holds_a_library():
    variables = isa.environment(None)
    assert {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES"} <= set(variables)
    assert set(variables.values()) == {None} and isa.environment("avx512") == variables


def test_avx2_holds_every_library_and_numpy_only_from_what_it_has():
    variables = isa.environment("avx2", FEATURES)
    assert variables["OPENBLAS_CORETYPE"] == "Haswell" and variables["OPENBLAS_L2_SIZE"] is None
    assert variables["NPY_DISABLE_CPU_FEATURES"] == "X86_V4 AVX512_ICL"
    assert variables["ONEDNN_MAX_CPU_ISA"] == variables["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"
    assert variables["ATEN_CPU_CAPABILITY"] == "avx2" and variables["OV_CPU_MAX_ISA"] == "AVX2"
    assert isa.environment("avx2", {"X86_V3": True, "X86_V4": False})["NPY_DISABLE_CPU_FEATURES"] is None


def test_the_environment_is_changed_for_a_while(monkeypatch):
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    with pytest.raises(KeyError), isa.changed({"OPENBLAS_L2_SIZE": None, "OPENBLAS_CORETYPE": "Haswell"}):
        assert "OPENBLAS_L2_SIZE" not in os.environ and os.environ["OPENBLAS_CORETYPE"] == "Haswell"
        raise KeyError
    assert os.environ["OPENBLAS_L2_SIZE"] == "512" and "OPENBLAS_CORETYPE" not in os.environ


@pytest.mark.parametrize(
    "report, expected",
    [
        ("SkylakeX", "avx512"),
        ("Cooperlake", "avx512"),
        ("Haswell", "avx2"),
        ("Zen", "avx2"),
        ("Nehalem", None),
        ("X86_V4", "avx512"),
        ("AVX512_ICL", "avx512"),
        ("X86_V3", "avx2"),
        ("AVX512", "avx512"),
        ("AVX2", "avx2"),
        ("DEFAULT", None),
        ("Intel AVX-512 with Intel DL Boost and bfloat16 support", "avx512"),
        ("Intel AVX2 with Intel DL Boost", "avx2"),
        ("Intel(R) Architecture", None),
        ("brgconv_avx512_f32", "avx512"),
        ("brgconv_avx2_f32", "avx2"),
    ],
)
def test_a_report_means_a_set(report, expected):
    assert isa.set_of(report) == expected


def test_what_onednn_and_mkl_print_is_read():
    mkl = "Intel(R) Advanced Vector Extensions 512 (Intel(R) AVX-512)"
    assert isa.named_in(VERBOSE) == {"oneDNN": "Intel AVX2", "MKL": mkl}
    amd = VERBOSE.replace(f"{mkl} enabled", "Intel(R) Architecture")
    assert isa.named_in(amd)["MKL"] == "Intel(R) Architecture"
    assert isa.named_in("nothing") == {}


def test_one_library_of_another_set_is_an_error():
    kernels = {"OpenBLAS": "Haswell", "NumPy": "X86_V3", "PyTorch": "AVX2", "MKL": "Intel(R) Architecture"}
    isa.require("avx2", kernels)
    isa.require(None, kernels | {"PyTorch": "DEFAULT"})
    with pytest.raises(UserError, match=r"--isa avx2 did not take effect.*OpenBLAS says .SkylakeX., NumPy says .X86_"):
        isa.require("avx2", kernels | {"OpenBLAS": "SkylakeX", "NumPy": "X86_V4"})
    with pytest.raises(UserError, match="avx512 did not"):
        isa.require("avx512", kernels)
    for silent in ({"PyTorch": "DEFAULT"}, {"OpenBLAS": "unknown"}, {"MKL": "Intel(R) AVX-512"}):
        with pytest.raises(UserError, match=next(iter(silent))):
            isa.require("avx2", kernels | silent)


def test_a_run_is_of_the_set_that_all_agree_on():
    assert isa.agreed({"OpenBLAS": "SkylakeX", "PyTorch": "AVX512", "MKL": "Intel(R) Architecture"}) == "avx512"
    assert isa.agreed({"OpenBLAS": "Haswell", "PyTorch": "AVX512"}) == "mixed"
    assert isa.agreed({"OpenBLAS": "neoversen1"}) == platform.machine().lower()
    assert isa.told("avx2", {"OpenBLAS": "Haswell", "NumPy": "X86_V3"}) == "AVX2 (OpenBLAS: Haswell, NumPy: X86_V3)"
    assert isa.told("mixed", {"OpenBLAS": "Zen"}) == "mixed (OpenBLAS: Zen)"


CPUINFO = "processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu sse2 avx avx2 fma{}\nbugs\t\t:\n"


def test_the_processors_set_is_the_widest_of_its_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.instruction_set() is None and machine.processor() == platform.machine()
    machine.CPUINFO.write_text(CPUINFO.format(""))
    assert machine.instruction_set() == "avx2" and machine.processor() == "A Processor"
    machine.CPUINFO.write_text(CPUINFO.format(" avx512f avx512vl"))
    assert machine.instruction_set() == "avx512"


def test_a_peer_that_is_not_measured_says_why(monkeypatch):
    there = {"openvino", "onnx", "onnxscript", "onnxruntime"}
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(machine, "instruction_set", lambda: "avx512")
    assert peers.left_out("OpenVINO", "avx2", "cpu") is None
    assert peers.left_out("ONNX Runtime", None, "cpu") is peers.left_out("ONNX Runtime", "avx512", "cpu") is None
    assert "cannot be held to AVX2" in peers.left_out("ONNX Runtime", "avx2", "cpu")
    assert "CPU alone" in peers.left_out("OpenVINO", None, "cuda")
    monkeypatch.setattr(machine, "instruction_set", lambda: "avx2")
    assert peers.left_out("ONNX Runtime", "avx2", "cpu") is None
    there -= {"openvino", "onnxscript"}
    assert peers.left_out("OpenVINO", None, "cpu").startswith("needs openvino, onnxscript: pip install")


@pytest.mark.skipif(machine.instruction_set() is None, reason="no processor with AVX2 that says so")
@pytest.mark.parametrize("core, wrong", [("Haswell", None), ("Nehalem", "OpenBLAS says 'Nehalem'")])
def test_a_process_asks_its_own_library(core, wrong, monkeypatch):
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "256")  # both are ours to set
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    variables = isa.environment("avx2") | {"OPENBLAS_CORETYPE": core}
    with Child("minild", "cpu", environment=variables) as child:
        if wrong:
            with pytest.raises(UserError, match=wrong):
                child.call("held", "avx2")
        else:
            assert child.call("held", "avx2")["OpenBLAS"] == "Haswell"
    assert os.environ["OPENBLAS_CORETYPE"] == "Nehalem"
