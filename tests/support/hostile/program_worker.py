"""Runs generated programs between guard pages, in a process of its own: what writes or reads outside ends it.

`program_worker.py FIRST COUNT STATUS`: the programs with the seeds FIRST and on until they hold COUNT
instructions. The number of the running program is in the file STATUS; at the end, a line of JSON says what was done. A
difference from the interpreter is an exception, whose last line names the seed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import sys
from collections import Counter

from hyperdex_ir.isa.program import Program
from support.programs.both_machines import Outcome
from support.programs.guard_pages import World
from support.programs.instruction_case import op
from support.programs.random_programs import BUDGET, Rolled, make_program, start_world

#: Programs that start from the same memory, and the length that most of them have.
TOGETHER, LENGTH = 12, 24
THREADS = 1, 2, 3
MANY_THREADS = 11  # more than there is work for, now and then
NOTHING = op("set", dst=0, value=0)


def try_program(world: World, seed: int) -> Counter[str]:
    """The program of a seed: with 1, 2 and 3 threads, now and then with 11, what the interpreter does; the last of a
    world, while its images are rewritten too. Counts of instructions and outcomes."""
    choose = Rolled(seed)
    # In a short one, no other instruction's need of scratch memory hides what one instruction writes behind its own.
    make_program(choose, world.case, choose.integer(1, 4) if choose.chance(20) else choose.integer(2, 2 * LENGTH))
    program, expected, executed = _with_few_faults(world, choose.pick((0, 2, 4, 8)))
    for threads in (*THREADS, MANY_THREADS) if choose.chance(4) else THREADS:
        found = world.native(program, threads)
        different = found.differences(expected)
        if different and not expected.is_untracked and not _both_are_nans(found, expected):
            raise AssertionError(f"{threads} threads: {different}")
    rewritten = seed % TOGETHER in (0, 1)
    if rewritten:
        for threads in THREADS[1:]:
            world.rewritten(program, threads, seed)
    return Counter(
        programs=1,
        instructions=len(program.instructions) - program.instructions.count(NOTHING),
        executed=executed,
        faults=int(expected.error is not None),
        rewritten=int(rewritten),
    )


def _with_few_faults(world: World, repairs: int) -> tuple[Program, Outcome, int]:
    """The world's program, what the interpreter makes of it, and the instructions that it executes. So many times, an
    instruction that faults becomes one that does nothing: most programs would end early, else."""
    while True:
        program = world.program()
        expected, executed = world.interpreted(program)
        found = re.match(r"\d+: instruction (\d+) \(", expected.error or "")
        if found is None or not repairs or executed >= BUDGET:
            return program, expected, executed
        repairs -= 1
        world.replace(int(found[1]), NOTHING)


def _both_are_nans(found: Outcome, expected: Outcome) -> bool:
    """Whether the same fault names numbers that are a NaN's bits, which are nobody's promise, taken for an i64."""
    errors = found.error or "", expected.error or ""
    alike = {re.sub(r"row -?\d{15,} of", "row of", error) for error in errors}
    numbers = [int(number) for error in errors for number in re.findall(r"row (-?\d{15,}) of", error)]
    return len(alike) == 1 and len(numbers) == 2 and all((n >> 32 & 0x7FFFFFFF) > 0x7F800000 for n in numbers)


def world_of(seed: int) -> World:
    """The memory that the program of a seed starts from."""
    return World(start_world(Rolled(-1 - seed // TOGETHER)))


def main() -> None:
    faulthandler.enable()
    first, count, status = int(sys.argv[1]), int(sys.argv[2]), os.open(sys.argv[3], os.O_WRONLY)
    totals: Counter[str] = Counter()
    seed, world = first, world_of(first)
    while totals["instructions"] < count:
        os.pwrite(status, b"%-20d" % seed, 0)
        try:
            totals += try_program(world, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        seed += 1
        if seed % TOGETHER == 0:
            world = world_of(seed)
    print(json.dumps(totals | {"next": seed}))


if __name__ == "__main__":
    main()
