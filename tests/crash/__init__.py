# SPDX-License-Identifier: Apache-2.0
"""What is left after a power loss, a kill or a failing disk, and whether the store keeps its promises on it.

    shim.c       records each change of a file and each acknowledgement, injects faults      shim.py builds it
    oplog.py     reads its log
    workload.py  what a workload script must have                     zygote.py, runner.py   run it, at a fork each
    recording.py one recorded run, proved complete
    model.py     what is durable and what is not, record by record
    replay.py    the states a power loss may leave                    stage.py               shows them in a directory
    sweep.py     checks every state                                   faults.py              checks every fault
    mutants.py   plants mistakes, to test the tester                  share.py, counts.py    divide work, keep figures

With a workload:

    with Runner(Workload(script)) as runner:
        recording = record(runner, tmp_path / "recording")
    result = sweep(recording, "posix", workers=2)
    assert not result.tally.bad, result  # prints the first bad state and the command that shows it again

Limits: no stores through mappings, no io_uring, no static binaries, no symbolic links, no change of permissions after
creation. Operations of threads are serialised while they are recorded.
"""
