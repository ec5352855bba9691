// RUN: hyperdex-opt %s -p 'lower-lpu-to-isa{gather-chunks=0}' --verify-diagnostics | filecheck %s

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
}
// CHECK: gather-chunks is 0, must be at least 1
