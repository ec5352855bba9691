// RUN: hyperdex-opt %s -p isa-schedule --split-input-file --verify-diagnostics | filecheck %s
// Target and maximum length must be there. What does not fit the LMU is left alone: isa-allocate-lmu has the error.

builtin.module attributes {"lpu.max_length" = 8 : i64} {
func.func @main() {
  func.return
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c"} {
func.func @main() {
  func.return
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 8 : i64} {
func.func @main() {
  %a = isa.buffer : !isa.lmu<tokens x 3000000>
  %b = isa.buffer : !isa.lmu<tokens x 3000000>
  isa.unary function=neg dst=%b a=%a columns=3000000 rows=tokens
  func.return
}
}

// CHECK:      error: the module has no string attribute lpu.target
// CHECK:      error: the module has no integer attribute lpu.max_length
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 8 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 3000000>
// CHECK-NEXT:     %b = isa.buffer : !isa.lmu<tokens x 3000000>
// CHECK-NEXT:     isa.unary function=neg dst=%b a=%a columns=3000000 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
