"""What the machine itself can do: bytes read per second, fused multiply-adds per second, with a number of threads.

    python benchmarks/machine_speed.py [--threads N]

Both are loops compiled for the host: plain reads of a buffer of 1 GiB with full vectors, each thread its own part; and
independent chains of float32 fused multiply-adds on registers.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import threading
import time
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np

GIB = 1 << 30
_STEP = 512  # bytes that one trip of the read loop takes
_CHAINS = 12  # enough independent chains to hide the latency of an FMA, few enough for 16 registers
_TRIPS = 5_000_000  # of the multiply loop: a tenth of a second


def default_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_ir() -> str:
    """i64 read(ptr, i64 bytes): the or of all 8-byte words, bytes a multiple of `_STEP`."""
    parts = range(_STEP // 64)
    zero = "zeroinitializer"
    phis = "\n".join(f"  %a{i} = phi <8 x i64> [ {zero}, %entry ], [ %b{i}, %loop ]" for i in parts)
    loads = "\n".join(
        f"  %p{i} = getelementptr i8, ptr %here, i64 {64 * i}\n"
        f"  %v{i} = load <8 x i64>, ptr %p{i}, align 8\n"
        f"  %b{i} = or <8 x i64> %a{i}, %v{i}"
        for i in parts
    )
    folds = "\n".join(f"  %c{i} = or <8 x i64> %{f'c{i - 1}' if i > 1 else 'b0'}, %b{i}" for i in parts[1:])
    return f"""
declare i64 @llvm.vector.reduce.or.v8i64(<8 x i64>)
define i64 @read(ptr %data, i64 %bytes) {{
entry:
  br label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
  %here = getelementptr i8, ptr %data, i64 %at
{loads}
  %next = add i64 %at, {_STEP}
  %more = icmp ult i64 %next, %bytes
  br i1 %more, label %loop, label %done
done:
{folds}
  %result = call i64 @llvm.vector.reduce.or.v8i64(<8 x i64> %c{parts[-1]})
  ret i64 %result
}}
"""


def _multiply_ir(lanes: int) -> str:
    """i64 multiply(ptr result, i64 trips): `_CHAINS` vectors of `lanes`, each a = fma(a, a, a) once a trip."""
    vector, chains = f"<{lanes} x float>", range(_CHAINS)
    phis = "\n".join(f"  %a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in chains)
    steps = "\n".join(
        f"  %b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {vector} %a{i}, {vector} %a{i})" for i in chains
    )
    stores = "\n".join(f"  store {vector} %b{i}, ptr %result, align 4" for i in chains)
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define i64 @multiply(ptr %result, i64 %trips) {{
entry:
  br label %loop
loop:
  %left = phi i64 [ %trips, %entry ], [ %next, %loop ]
{phis}
{steps}
  %next = sub i64 %left, 1
  %more = icmp ne i64 %next, 0
  br i1 %more, label %loop, label %done
done:
{stores}
  ret i64 0
}}
"""


class MachineSpeed:
    """The two loops, compiled; `threads` is how many run at once."""

    def __init__(self, threads: int):
        self.threads = threads
        features = llvm.get_host_cpu_features()
        self.lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
        self._engine = _compile(_read_ir() + _multiply_ir(self.lanes), features.flatten())
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
        self._read = prototype(self._engine.get_function_address("read"))
        self._multiply = prototype(self._engine.get_function_address("multiply"))
        self._buffer = np.ones(GIB, np.uint8)

    def bandwidth(self, reads: int = 5) -> float:
        """Bytes per second: the best of several reads of the buffer."""
        part = GIB // self.threads // _STEP * _STEP
        start = self._buffer.ctypes.data
        work = [lambda at=start + i * part: self._read(at, part) for i in range(self.threads)]
        return max(part * self.threads / _seconds(work) for _ in range(reads))

    def multiplies(self, runs: int = 3) -> float:
        """Float32 fused multiply-adds per second: the best of several runs."""
        places = np.zeros((self.threads, 64), np.float32)
        work = [lambda at=place.ctypes.data: self._multiply(at, _TRIPS) for place in places]
        return max(_TRIPS * _CHAINS * self.lanes * self.threads / _seconds(work) for _ in range(runs))


def _compile(text: str, features: str) -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def _seconds(work: list[Callable[[], int]]) -> float:
    """Seconds that the calls take, each in a thread of its own, from when all are ready."""
    ready = threading.Barrier(len(work) + 1)

    def run(call: Callable[[], int]) -> None:
        ready.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in work]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=default_threads(), help="threads (default: the cores)")
    arguments = parser.parse_args()
    machine = MachineSpeed(arguments.threads)
    print(f"{'threads':24} {machine.threads:8}")
    print(f"{'read bandwidth':24} {machine.bandwidth() / 1e9:8.1f} GB/s")
    print(f"{'fused multiply-adds':24} {machine.multiplies() / 1e9:8.1f} G/s (vectors of {machine.lanes})")


if __name__ == "__main__":
    main()
